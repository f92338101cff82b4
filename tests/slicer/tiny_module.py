"""A scripted module as small as can be, and volumes with a ball in them, for the tests of the harness."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import slicer

MODULE = """
import qt, ctk, slicer, vtk
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import *
from slicer.util import VTKObservationMixin


class Tiny(ScriptedLoadableModule):
    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("Tiny")
        parent.categories = ["Testing"]


class TinyWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        self.logic = TinyLogic()
        self.cleaned = []
        panel = slicer.util.loadUI(self.resourcePath("UI/Tiny.ui"))
        self.layout.addWidget(panel)
        self.ui = slicer.util.childWidgetVariables(panel)
        panel.setMRMLScene(slicer.mrmlScene)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onClosed)
        self.ui.applyButton.connect("clicked(bool)", self.onApply)
        self.ui.inputSelector.connect("currentNodeChanged(vtkMRMLNode*)", self.onNode)
        self.ui.acceleration.connect("valueChanged(double)", self.onValue)
        self.onNode(None)

    def onNode(self, node):
        self.ui.applyButton.enabled = node is not None
        self.ui.status.text = node.GetName() if node else _("choose a volume")

    def onValue(self, value):
        self.ui.status.text = "R = %g" % value

    def onApply(self):
        self.ui.status.setText("mean %g" % self.logic.mean(self.ui.inputSelector.currentNode()))

    def onClosed(self, caller, event):
        self.ui.status.text = "closed"

    def cleanup(self):
        self.cleaned.append(self.ui.status.text)
        self.removeObservers()


class TinyLogic(ScriptedLoadableModuleLogic):
    def mean(self, volume):
        return float(slicer.util.arrayFromVolume(volume).mean())
"""

UI = """<?xml version="1.0" encoding="UTF-8"?>
<ui version="4.0">
 <class>Tiny</class>
 <widget class="qMRMLWidget" name="Tiny">
  <layout class="QVBoxLayout" name="verticalLayout">
   <item>
    <widget class="ctkCollapsibleButton" name="inputs">
     <property name="text"><string>Inputs</string></property>
     <layout class="QFormLayout" name="formLayout">
      <item row="0" column="0">
       <widget class="QLabel" name="label"><property name="text"><string>Volume:</string></property></widget>
      </item>
      <item row="0" column="1">
       <widget class="qMRMLNodeComboBox" name="inputSelector">
        <property name="nodeTypes"><stringlist><string>vtkMRMLScalarVolumeNode</string></stringlist></property>
        <property name="noneEnabled"><bool>true</bool></property>
        <property name="addEnabled"><bool>false</bool></property>
       </widget>
      </item>
      <item row="1" column="1">
       <widget class="ctkSliderWidget" name="acceleration">
        <property name="minimum"><double>1.0</double></property>
        <property name="maximum"><double>8.0</double></property>
        <property name="value"><double>4.0</double></property>
       </widget>
      </item>
     </layout>
    </widget>
   </item>
   <item>
    <widget class="QPushButton" name="applyButton"><property name="text"><string>Apply</string></property></widget>
   </item>
   <item><widget class="QLabel" name="status"/></item>
  </layout>
 </widget>
 <connections>
  <connection>
   <sender>Tiny</sender><signal>mrmlSceneChanged(vtkMRMLScene*)</signal>
   <receiver>inputSelector</receiver><slot>setMRMLScene(vtkMRMLScene*)</slot>
  </connection>
 </connections>
</ui>
"""


def write(folder: Path) -> Path:
    """Write the module with its .ui file; returns the path of the module."""
    (folder / "Resources" / "UI").mkdir(parents=True)
    (folder / "Resources" / "UI" / "Tiny.ui").write_text(UI)
    (folder / "Tiny.py").write_text(MODULE)
    return folder / "Tiny.py"


def oblique(angle: float = 0.3) -> np.ndarray:
    """IJK to RAS of an LPS grid, 1.5 mm, tilted about the first axis, centred near the origin."""
    cosine, sine = np.cos(angle), np.sin(angle)
    turn = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    matrix = np.eye(4)
    matrix[:3, :3] = turn @ np.diag([-1.5, -1.5, 1.5])
    matrix[:3, 3] = -matrix[:3, :3] @ np.array([30, 30, 20])
    return matrix


def ball_volume(centre_ras: tuple[float, float, float], radius: float = 8.0, name: str = "ball"):
    """A 60x60x40 oblique volume, 100 with a ball of 1000 around a point of the patient."""
    matrix = oblique()
    k, j, i = np.meshgrid(np.arange(40), np.arange(60), np.arange(60), indexing="ij")
    ras = np.stack([i, j, k, np.ones_like(i)], -1) @ matrix.T
    distance = np.linalg.norm(ras[..., :3] - np.array(centre_ras), axis=-1)
    volume = slicer.util.addVolumeFromArray(np.where(distance < radius, 1000, 100).astype(np.int16), matrix, name)
    volume.CreateDefaultDisplayNodes()
    volume.GetDisplayNode().AutoWindowLevelOff()
    volume.GetDisplayNode().SetWindowLevelMinMax(0, 1000)
    return volume
