"""The module ``qt`` as Slicer has it: the classes of QtCore, QtGui and QtWidgets in one flat namespace."""

from __future__ import annotations

import os
import types

from PySide6 import QtCore, QtGui, QtWidgets

from . import dialogs, settings, ui_files
from .pythonqt import proxy_class

# Every name is wrapped by PythonQt's generated bindings (com_trolltech_qt_core, _gui) and exists in Qt 5.15 and 6.
CORE = """
QObject QTimer QSize QSizeF QPoint QPointF QRect QRectF QUrl QFile QFileInfo QDir QIODevice QDateTime QDate
QTime QLocale QEvent QModelIndex QItemSelectionModel QSignalBlocker QStandardPaths QMimeData QElapsedTimer
QByteArray QAbstractItemModel QSortFilterProxyModel QStringListModel Qt
""".split()
GUI = """
QIcon QPixmap QImage QColor QBrush QPen QPainter QFont QFontMetrics QPalette QCursor QAction QActionGroup
QKeySequence QShortcut QStandardItem QStandardItemModel QDoubleValidator QIntValidator QClipboard
""".split()
WIDGETS = """
QApplication QWidget QMainWindow QDialog QDialogButtonBox QFrame QLabel QAbstractButton QPushButton
QToolButton QCheckBox QRadioButton QButtonGroup QComboBox QLineEdit QTextEdit QPlainTextEdit QTextBrowser
QAbstractSpinBox QSpinBox QDoubleSpinBox QAbstractSlider QSlider QDial QProgressBar QGroupBox QTabWidget
QStackedWidget QScrollArea QSplitter QToolBox QToolBar QStatusBar QMenu QMenuBar QWidgetAction QListWidget
QListWidgetItem QTableWidget QTableWidgetItem QTreeWidget QTreeWidgetItem QTableView QTreeView QListView
QHeaderView QAbstractItemView QLayout QBoxLayout QVBoxLayout QHBoxLayout QGridLayout QFormLayout
QStackedLayout QSpacerItem QSizePolicy QStyle QToolTip QCompleter QStyledItemDelegate
""".split()

# Each of these stands in front of a person or the machine's own state.
STAND_INS = {
    "QSettings": settings.Settings,
    "QMessageBox": dialogs.MessageBox,
    "QFileDialog": dialogs.FileDialog,
    "QDesktopServices": dialogs.DesktopServices,
    "QUiLoader": ui_files.UiLoader,
}


def application() -> QtWidgets.QApplication:
    """The one QApplication, in Qt's own Fusion style, so that pictures look the same everywhere."""
    existing = QtWidgets.QApplication.instance()
    if existing is not None:
        return existing
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    made = QtWidgets.QApplication(["Slicer"])
    made.setStyle("Fusion")
    return made


def build() -> types.ModuleType:
    """A fresh module object; a name that is not listed raises AttributeError."""
    module = types.ModuleType("qt", "PythonQt look-alike of the harness")
    for source, names in ((QtCore, CORE), (QtGui, GUI), (QtWidgets, WIDGETS)):
        for name in names:
            setattr(module, name, proxy_class(getattr(source, name)))
    for name, stand_in in STAND_INS.items():
        setattr(module, name, stand_in)
    return module
