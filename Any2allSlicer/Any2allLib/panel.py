"""The panel: holds the form, brings its sections together, and is driven by one timer.

Every slot is short: what takes time is advanced by `Panel.tick`.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from .choice import follow_scene
from .connection import Connection
from .consent import Consent
from .form import Form, Row, VolumeFacts
from .how import HowSection, expected
from .local_server import LocalServerBox
from .memory import SceneMemory
from .parts import Parts
from .progress_box import ProgressBox
from .protocol import ServerInfo
from .run import Order, Run
from .shown import ResultsSection
from .table import ModalityTable
from .wanted import WantedOutputs
from .words import about, listed

TICK_MS = 50
READY, NOT_READY = "color: #3fa34d", "color: #d08a00"


class Panel(VTKObservationMixin):
    """The whole panel.

    Args:
        ui: its widgets by name (``slicer.util.childWidgetVariables``).
        parts: the scene side and the way to servers.
        get_node: finds or makes the module's parameter node.

    Attributes:
        form: what is chosen.
        run: what Apply has started, or None.
    """

    def __init__(self, ui: Any, parts: Parts, get_node: Callable[[], slicer.vtkMRMLScriptedModuleNode]) -> None:
        super().__init__()
        self.ui, self._parts, self._memory = ui, parts, SceneMemory(get_node)
        self.form, self.run = Form(), None
        self._chosen: set[str] = set()
        self._facts: dict[str, VolumeFacts] = {}
        self._scene_changed = True
        self._leaving: list[Run] = []  # they are over; their server may still have to be told
        self._consent = Consent()
        self._table = ModalityTable(ui.tableHost, slicer.mrmlScene, self._on_row)
        self._wanted = WantedOutputs(ui.wantedHost, ui.captionLabel, self.refresh)
        self._how = HowSection(ui, self.refresh)
        self._progress = ProgressBox(ui)
        self.connection = Connection(ui, parts.client, self._on_server)
        self.local_server = LocalServerBox(ui, parts.process, self._on_local_server)
        self.results = ResultsSection(ui, parts, lambda: self.form)
        ui.captionLabel.styleSheet = NOT_READY
        ui.privacyLabel.styleSheet = NOT_READY
        ui.applyButton.connect("clicked(bool)", lambda: self._on_apply())
        ui.resumeButton.connect("clicked(bool)", lambda: self._on_resume())
        ui.assignButton.connect("clicked(bool)", lambda: self._on_assign_again())
        self._observe_scene()
        self._restore()
        self.refresh()
        self._timer = qt.QTimer()
        self._timer.setInterval(TICK_MS)
        self._timer.connect("timeout()", self.tick)
        self._timer.start()

    # -- life ----------------------------------------------------------------------------------------------------------

    def enter(self) -> None:
        """The module is shown."""
        self.results.enter()
        self._scene_changed = True

    def exit(self) -> None:
        """Another module is shown; a running job goes on."""
        self.results.exit()

    def close(self) -> None:
        """The module goes away."""
        self._timer.stop()
        self.results.close()
        self.removeObservers()
        self.connection.close()
        self.local_server.close()
        for run in [*self._leaving, *([] if self.run is None else [self.run])]:
            run.close()

    def tick(self) -> None:
        """Let everything go on a little."""
        now = time.monotonic()
        self.connection.tick(now)
        self.local_server.tick(now)
        self.results.tick(now)
        self._table.settle()
        if self._scene_changed and not slicer.mrmlScene.IsBatchProcessing():
            self._follow_scene()
        if self.run is not None:
            self._advance(now)
        self._leaving = [run for run in self._leaving if not run.tell_server(now)]

    # -- what is shown -------------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Bring the panel up to the form, and the scene's memory of it."""
        info, ui = self.connection.info, self.ui
        self._wanted.show(self.form)
        slices = self._slices(info)
        self._how.show(self.form, info, slices)
        busy = self.run is not None
        for widget in (ui.tableHost, ui.assignButton, ui.wantedHost, ui.advancedBox):
            widget.enabled = not busy
        if busy:
            for button in (ui.presetFast, ui.presetBalanced, ui.presetBest):
                button.enabled = False
        self._show_apply(info, slices)
        if not slicer.mrmlScene.IsClosing() and not slicer.mrmlScene.IsImporting():
            self._memory.save(self.form, self._chosen, self.connection.url)

    def _show_apply(self, info: ServerInfo | None, slices: int | None) -> None:
        """Apply and the line above it, which always says why it can or cannot be pressed."""
        ui = self.ui
        if self.run is not None:
            shown = self.run.snapshot()
            ui.applyButton.text, ui.applyButton.enabled = _("Cancel"), shown.can_cancel
            ui.applyButton.toolTip = _("Stop the job; nothing of it is kept")
            ui.readyLabel.visible = False
            return
        problem = self.form.problem(info, self._facts)
        self._table.say({} if info is None else self.form.row_problems(info, self._facts))
        ui.applyButton.text, ui.applyButton.enabled = _("Apply"), not problem
        ui.applyButton.toolTip = problem or _("Send the images and make the chosen ones")
        ui.readyLabel.text = problem or self._promise(info, slices)
        ui.readyLabel.styleSheet = NOT_READY if problem else READY
        ui.readyLabel.visible = True

    def _promise(self, info: ServerInfo, slices: int | None) -> str:
        words = _("Ready: {0} from {1}").format(listed(self.form.outputs), listed(self.form.given))
        seconds = expected(self.form, self.form.preset, info, slices)
        words = f"{words}, {about(seconds)}" if seconds is not None else words
        if self.form.effective_sampler(info)[2] == 1:
            words = _("{0}. One sample: no measure of uncertainty").format(words)
        return f"{words}."

    def _slices(self, info: ServerInfo | None) -> int | None:
        """Slices of the study, counted as the server's prior has them; None where only raw files are given."""
        node = slicer.mrmlScene.GetNodeByID(self.form.reference_volume) if self.form.reference_volume else None
        return None if info is None or node is None else self._parts.upload.slices_of(node, info.slice_mm)

    # -- the scene -----------------------------------------------------------------------------------------------------

    def _observe_scene(self) -> None:
        scene, kind = slicer.mrmlScene, slicer.vtkMRMLScene
        for event in (kind.NodeAddedEvent, kind.NodeRemovedEvent, kind.EndBatchProcessEvent):
            self.addObserver(scene, event, self._on_scene_changed)
        self.addObserver(scene, kind.EndImportEvent, self._on_import)
        self.addObserver(scene, kind.StartCloseEvent, self._on_close_begins)
        self.addObserver(scene, kind.EndCloseEvent, self._on_closed)

    def _on_scene_changed(self, _caller: object, _event: object) -> None:
        self._scene_changed = True

    def _follow_scene(self) -> None:
        """Volumes have come or gone: rows that nobody touched follow."""
        self._scene_changed = False
        info, volumes = self.connection.info, self._parts.upload.scene_volumes(slicer.mrmlScene)
        nodes = [slicer.mrmlScene.GetNodeByID(volume.id) for volume in volumes]
        self._facts = {node.GetID(): self._parts.upload.volume_facts(node) for node in nodes}
        if info is not None and self.run is None:
            follow_scene(self.form, self._chosen, volumes, info.stack)
            self._table.show(self.form)
        self.results.refresh()
        self.refresh()

    def _on_import(self, _caller: object, _event: object) -> None:
        self._restore()
        self._scene_changed = True

    def _restore(self) -> None:
        """Take on what the scene remembers."""
        remembered = self._memory.load()
        if not remembered.form.rows and not remembered.url:
            return
        self.connection.set_url(remembered.url)  # first: after it there may be no server, whose stack would be taken on
        self._take_on(remembered.form, remembered.chosen)

    def _take_on(self, form: Form, chosen: set[str]) -> None:
        """Another form, fitted to the server; without one, it gets a row for every line that is still shown."""
        self.form, self._chosen = form, chosen
        if self.connection.info is not None:
            form.fit(self.connection.info)
        for name in self._table.rows:
            form.rows.setdefault(name, Row())
        self._table.show(form)

    def _on_close_begins(self, _caller: object, _event: object) -> None:
        """Nothing of a job can be shown in another scene."""
        if self.run is not None:
            self.run.leave(_("The scene was closed: the job was cancelled."))
            self._ended()

    def _on_closed(self, _caller: object, _event: object) -> None:
        self._facts = {}
        self._take_on(Form(), set())
        self.results.forget()
        self._scene_changed = True

    # -- what the user does --------------------------------------------------------------------------------------------

    def _on_server(self) -> None:
        """Another server, another answer, or none any more."""
        info = self.connection.info
        if info is not None and self.run is None:
            self.form.fit(info)
            if self._table.build(info):
                self._table.chain(self.ui.serverLog, self.ui.assignButton)
                self._wanted.build(info)
            self._how.build(info)
            self._table.show(self.form)
            self._scene_changed = True
            self.ui.assignLabel.text = _("Images are found by their names and DICOM tags.")
        self.refresh()

    def _on_local_server(self, url: str, patience_s: float) -> None:
        self.connection.set_url(url)
        self.connection.test(patience_s)

    def _on_row(self, name: str) -> None:
        """A row was changed by hand: it no longer follows the scene."""
        self._chosen.add(name)
        self.refresh()

    def _on_assign_again(self) -> None:
        self._chosen.clear()
        self._follow_scene()

    def _on_apply(self) -> None:
        if self.run is not None:
            self.run.cancel()
            self._advance(time.monotonic())
            return
        before = self.form.to_json()
        self._follow_scene()
        info, client = self.connection.info, self.connection.client
        if self.form.problem(info, self._facts):
            return
        if self.form.to_json() != before:  # a renamed volume, say: nobody has seen this study yet
            self._progress.say(_("The scene has changed. Look at what there is now, and press Apply again."))
            return
        order = Order(client, info, copy.deepcopy(self.form), self._source_names(), self._expected(info))
        raw = any(not self.form.rows[name].uses_volume for name in self.form.named("undersampled"))
        if not self._consent.given(client, self.form.what_is_sent(self._facts), raw):
            self._progress.say(_("Nothing was sent."))
            return
        try:
            self.run = Run(self._parts, slicer.mrmlScene, order, Path(slicer.app.temporaryPath))
        except OSError as error:
            self._progress.say(_("The temporary folder cannot be used: {0}.").format(error.strerror), wrong=True)
            return
        self._progress.begin()
        self.refresh()

    def _expected(self, info: ServerInfo) -> float | None:
        return expected(self.form, self.form.preset, info, self._slices(info))

    def _source_names(self) -> dict[str, str]:
        """Modality → name of the volume or file that is given."""
        rows = {name: self.form.rows[name] for name in self.form.given}
        return {
            name: self._facts[row.volume].name if row.uses_volume else Path(row.raw_file).name
            for name, row in rows.items()
        }

    # -- a run ---------------------------------------------------------------------------------------------------------

    def _on_resume(self) -> None:
        if self.run is not None:
            self.run.resume(time.monotonic())

    def _advance(self, now: float) -> None:
        over = self.run.tick(now)
        shown = self.run.snapshot()
        self._progress.show(shown)
        self.ui.applyButton.enabled = shown.can_cancel
        if over:
            self._ended()

    def _ended(self) -> None:
        run, self.run = self.run, None
        self._leaving.append(run)
        shown = run.snapshot()
        self._progress.end(shown, [output.modality for output in run.outputs])
        self._on_server()  # another one may have been connected to meanwhile
        if shown.state == "done":
            self.results.show_run(run.outputs, shown.warnings)
        elif self.connection.info is not None:
            self.connection.test()  # the server may be why it ended
