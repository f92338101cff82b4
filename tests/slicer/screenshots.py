"""``make screenshots``: the panel beside three slice views at three moments, with the demonstration study.

The images are made by a real server where its environment is there (see `real_server`). Usage: screenshots.py [FOLDER]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

import lib_path  # noqa: E402
import numpy as np  # noqa: E402
from harness import problems, screens, scripted, slicer_module  # noqa: E402
from panel_driver import MODULE, Person  # noqa: E402
from PySide6 import QtCore, QtGui, QtWidgets  # noqa: E402
from real_server import real_server, server_python  # noqa: E402

DEMONSTRATION = lib_path.REPOSITORY / "bundle" / "demo"
FOLDER = lib_path.MODULE / "Screenshots"
SIZE, PANEL_WIDTH = (1600, 900), 520
MOST_BYTES = 600_000  # all pictures together
LONGEST_S = 600.0
GREYS = 64  # of 256 colours


def main(folder: Path) -> None:
    """Write ready.png, running.png and done.png."""
    python = server_python()
    if python is None:
        raise SystemExit("error: no server environment: set ANY2ALL_SERVER_PYTHON, or run `make serve` once")
    folder.mkdir(parents=True, exist_ok=True)
    slicer_module.install()
    QtWidgets.QApplication.setPalette(screens.dark_palette())  # before the panel is made, as Slicer does
    with tempfile.TemporaryDirectory() as temporary:
        world = slicer_module.begin(Path(temporary) / "slicer")
        with real_server(python, Path(temporary) / "server", threads=2, port=8000) as url:
            take(Person(scripted.load(MODULE), None, slicer_module.run_events), url, folder)
        slicer_module.end(world)
    problems.assert_none()
    size = sum(path.stat().st_size for path in folder.glob("*.png"))
    if size > MOST_BYTES:
        raise SystemExit(f"error: the pictures have {size} bytes; {MOST_BYTES} are allowed")


def take(person: Person, url: str, folder: Path) -> None:
    """Three pictures of one run."""
    import slicer

    for name in ("T1", "T2star", "T2FLAIR"):
        volume = slicer.util.loadVolume(str(DEMONSTRATION / f"{name}.nii.gz"), {"show": name == "T1"})
        volume.CreateDefaultDisplayNodes()
    slicer.app.layoutManager().resetSliceViews()
    person.ui.urlCombo.setEditText(url)
    person.panel.connection.test(120.0)
    person.wait(lambda: "~" in person.ui.presetBalanced.text, 180)
    person.click("T2FLAIR_undersampled")
    person.find("T2_wanted").checked = False
    person.idle()
    save(person, folder / "ready.png")
    person.apply()
    person.wait(lambda: person.ui.progressBar.value > 500, LONGEST_S)
    save(person, folder / "running.png")
    person.wait(lambda: person.panel.run is None, LONGEST_S)
    assert person.ui.progressLabel.text.startswith("Done."), person.ui.progressLabel.text
    row = next(r for r in range(9) if person.ui.outputsTable.item(r, 0).text().startswith("CT"))
    person.ui.outputsTable.selectRow(row)
    person.idle()
    show_values(person, slicer)
    save(person, folder / "done.png")


def show_values(person: Person, slicer) -> None:
    """The mouse in the white matter of the left side, in the middle slice; in Slicer the views move together."""
    bounds = [0.0] * 6
    slicer.util.getNode("T1").GetRASBounds(bounds)
    point = tuple((1 - part) * bounds[2 * a] + part * bounds[2 * a + 1] for a, part in enumerate((0.36, 0.55, 0.5)))
    node = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    node.SetCrosshairRAS(*point)
    for name in ("Any2allReference", "Any2allOutput", "Any2allUncertainty"):
        slicer.app.layoutManager().sliceWidget(name).sliceLogic().SetSliceOffset(point[2])
    node.SetCursorPositionRAS(list(point))
    person.idle()


def save(person: Person, path: Path) -> None:
    """One picture in 256 colours, which makes it a third as large."""
    screens.save_screen(person.loaded.panel, path, SIZE, PANEL_WIDTH)
    image = QtGui.QImage(str(path)).convertToFormat(QtGui.QImage.Format.Format_RGB32)
    flags = QtCore.Qt.ImageConversionFlag.ThresholdDither | QtCore.Qt.ImageConversionFlag.AvoidDither
    image.convertToFormat(QtGui.QImage.Format.Format_Indexed8, palette_of(image), flags).save(str(path), "PNG", 0)
    print(f"{path} ({path.stat().st_size // 1000} kB)", flush=True)


def palette_of(image: QtGui.QImage) -> list[int]:
    """Greys for the images, and the most frequent colours, coarsely told apart, for the panel and the uncertainty."""
    pixels = np.frombuffer(image.constBits(), np.uint8).reshape(-1, 4)[:, :3].astype(np.uint32)  # blue, green, red
    coloured = pixels[np.ptp(pixels, axis=1) > 0]
    packed = (coloured[:, 2] << 16 | coloured[:, 1] << 8 | coloured[:, 0]) & 0xFCFCFC
    colours, counts = np.unique(packed, return_counts=True)
    frequent = colours[np.argsort(counts)[::-1]][: 256 - GREYS]
    greys = np.linspace(0, 255, GREYS).astype(np.uint32) * 0x010101
    return [0xFF000000 | int(colour) for colour in np.concatenate([greys, frequent])]


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
