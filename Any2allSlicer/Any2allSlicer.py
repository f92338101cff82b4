"""Any2all in 3D Slicer: fills in the brain images that a study lacks. The panel itself is in Any2allLib."""

from __future__ import annotations

from pathlib import Path

import slicer
from Any2allLib import launch, readout, results, upload, views
from Any2allLib.client import Client
from Any2allLib.panel import Panel
from Any2allLib.parts import Parts
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

DEMONSTRATION = {"T1": "T1", "T2star": "T2star", "T2FLAIR": "T2FLAIR"}  # name in Slicer → modality on the server
DEMONSTRATION_SERVER = "http://127.0.0.1:8000"  # where `make serve` listens


class Any2allSlicer(ScriptedLoadableModule):
    """What Slicer shows of the module in its menus."""

    def __init__(self, parent) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("Any2all")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Image Synthesis")]
        parent.dependencies = []
        parent.contributors = ["Any2all maintainers"]
        parent.helpText = _(
            "<p>Fills in the brain images that a study lacks (T1, T2, T2FLAIR, T2star, CT, PET) from those that it has "
            "and from undersampled raw MR data, and says how sure it is. The computing is done by an Any2all server, "
            "on this computer or another one; this module needs nothing but its address.</p>"
            "<p><b>How to begin:</b> load images (Sample Data has <i>CTMRBrain</i>; with a local server also "
            "<i>Any2all demonstration</i>), connect, look whether every image stands in its line, tick what to make, "
            "press Apply.</p>"
            "<p><b>Not a medical device.</b> Made images are guesses of a model: they cannot show what leaves no trace "
            "in the given images, such as amyloid status or fresh haemorrhage.</p>"
            "<p><b>What is sent:</b> voxels and geometry of the chosen images, without names or dates (raw data files "
            "as they are), to the server that you chose; to another computer only after you agreed.</p>"
        )
        parent.acknowledgementText = _(
            "<p>If you use this module in your work, please cite the article whose method it implements: Gan et al., "
            'arXiv <a href="https://arxiv.org/abs/2602.08249">2602.08249</a>.</p>'
        )
        slicer.app.connect("startupCompleted()", register_sample_data)


def register_sample_data() -> None:
    """The demonstration subject of a local server (`make serve`). CTMRBrain comes with Slicer and needs no entry."""
    import SampleData

    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="Any2all",
        sampleName="Any2allDemonstration",
        uris=[f"{DEMONSTRATION_SERVER}/datastore/image?image=demonstration/{m}" for m in DEMONSTRATION.values()],
        fileNames=[f"Any2allDemonstration_{name}.nii.gz" for name in DEMONSTRATION],
        nodeNames=list(DEMONSTRATION),
        sampleDescription=_("Rendered head with T1, T2star and T2FLAIR, from the local Any2all server (make serve)"),
    )


class Any2allSlicerWidget(ScriptedLoadableModuleWidget):
    """Loads the .ui file and gives the panel its real parts."""

    def setup(self) -> None:
        ScriptedLoadableModuleWidget.setup(self)
        self.logic = Any2allSlicerLogic()
        widget = slicer.util.loadUI(self.resourcePath("UI/Any2allSlicer.ui"))
        self.layout.addWidget(widget)
        widget.setMRMLScene(slicer.mrmlScene)
        self.ui = slicer.util.childWidgetVariables(widget)
        parts = Parts(upload, results, views, readout.CursorReadout, Client, launch.ServerProcess)
        self.panel = Panel(self.ui, parts, self.logic.getParameterNode)

    def enter(self) -> None:
        self.panel.enter()

    def exit(self) -> None:
        self.panel.exit()

    def cleanup(self) -> None:
        self.panel.close()


class Any2allSlicerLogic(ScriptedLoadableModuleLogic):
    """Its parameter node keeps what is chosen in the panel; all other logic is in Any2allLib."""


class Any2allSlicerTest(ScriptedLoadableModuleTest):
    """Self-test inside Slicer: a whole run against a small server in this process, then a look at the scene."""

    def runTest(self) -> None:
        self.setUp()
        self.test_whole_run()

    def setUp(self) -> None:
        slicer.mrmlScene.Clear(0)

    def test_whole_run(self) -> None:
        from Any2allLib.self_test import whole_run

        self.delayDisplay(_("A run against a server inside this process"))
        slicer.modules.any2allslicer.widgetRepresentation()  # makes the panel where it was never opened
        widget = slicer.modules.Any2allSlicerWidget
        outputs = whole_run(widget, Path(slicer.app.temporaryPath), slicer.app.processEvents)
        self.assertEqual([output.modality for output in outputs], ["CT"])
        self.assertIsNotNone(slicer.mrmlScene.GetNodeByID(outputs[0].mean_id))
        self.assertTrue(outputs[0].std_id)
        self.delayDisplay(_("Test passed"))
