"""What the panel is given: the scene side and the way to servers, as Protocols, so that it can be tested with fakes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import slicer

from .assign import VolumeInfo
from .client import Client
from .form import VolumeFacts
from .launch import LocalServer
from .protocol import ModalityInfo


class Upload(Protocol):
    """From the scene to files (`upload`)."""

    def scene_volumes(self, scene: slicer.vtkMRMLScene) -> list[VolumeInfo]: ...

    def volume_facts(self, node: slicer.vtkMRMLVolumeNode) -> VolumeFacts: ...

    def slices_of(self, node: slicer.vtkMRMLVolumeNode, slice_mm: float) -> int: ...

    def write_pieces(self, node: slicer.vtkMRMLVolumeNode, path: Path) -> Generator[Any, None, None]: ...


class Results(Protocol):
    """From files to the scene (`results`)."""

    RunFacts: Callable[..., Any]

    def show_pieces(
        self,
        scene: slicer.vtkMRMLScene,
        folder: Path,
        results: Sequence[Any],
        stack: Sequence[ModalityInfo],
        facts: Any,
        sent: Path | None,
        measured: Sequence[str],
        reference: str,
    ) -> Generator[None, None, list[Any]]: ...

    def is_moved(self, node: slicer.vtkMRMLVolumeNode, sent: Path) -> bool: ...

    def find_outputs(self, scene: slicer.vtkMRMLScene) -> list[Any]: ...


class Views(Protocol):
    """How images are shown (`views`)."""

    def register(self, layout_manager: Any) -> None: ...

    def compare(self, layout_manager: Any, reference_id: str, output_id: str, std_id: str) -> str: ...

    def annotate(self, layout_manager: Any, outputs: Sequence[Any]) -> None: ...

    def overlay(self, std_id: str | None, opacity: float) -> None: ...

    def blink(self, first_id: str, second_id: str) -> None: ...

    def legend(self, on: bool) -> None: ...


class Readout(Protocol):
    """Values under the mouse (`readout.CursorReadout`)."""

    def start(self) -> None: ...

    def stop(self) -> None: ...


class Process(Protocol):
    """A local server under way (`launch.ServerProcess`)."""

    alive: bool
    exit_code: int | None

    def stop(self) -> None: ...

    def poll(self) -> bool: ...

    def last_lines(self, count: int = 10) -> str: ...


@dataclass(frozen=True)
class Parts:
    """Everything that the panel does not do itself."""

    upload: Upload
    results: Results
    views: Views
    readout: Callable[[Any, Any, Callable[[str], None]], Readout]
    client: Callable[[str, str], Client]
    process: Callable[[LocalServer, Path, Mapping[str, str]], Process]
