"""A job's files become volumes of the scene: all of them, or none."""

from __future__ import annotations

import json
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import vtk
from vtk.util import numpy_support

from . import display, nifti, outputs
from .nodes import corners, is_placed_linearly, nodes_by_class, shape_of, world_affine
from .outputs import CREATED, Output, find_outputs, output_of
from .protocol import ModalityInfo, ResultInfo

__all__ = ["Output", "RunFacts", "find_outputs", "is_moved", "show_pieces"]

SAME_MM = 1e-3  # corners of two grids that are one
VOXELS_AT_ONCE = 2**21  # that are looked at between two ticks of the GUI
DICOM_KINDS = {"MR": "MR", "CT": "CT", "PET": "PT"}
DESCRIPTION = "DICOM.SeriesDescription"


@dataclass(frozen=True)
class RunFacts:
    """How the outputs came about, as the panel knows it.

    ``inputs``: modality → name of the volume or file that was given. ``filled_by``: the server's software.
    """

    sampler: str
    steps: int
    samples: int
    seed: int
    preset: str
    prior_sha256: str
    prior_version: str
    server: str
    inputs: Mapping[str, str]
    software: str
    filled_by: str = ""

    def as_told(self, origin: Mapping[str, Any]) -> RunFacts:
        """The same, by what a result's own header says: its server may be another one than answered at *Test*."""
        prior, sampler = (_mapping(origin.get(key)) for key in ("prior", "sampler"))
        told = {
            "prior_sha256": prior.get("sha256"),
            "prior_version": prior.get("version"),
            "sampler": sampler.get("name"),
            "steps": sampler.get("steps"),
            "samples": sampler.get("samples"),
            "seed": origin.get("seed"),
            "filled_by": origin.get("software"),
        }
        return replace(self, **{key: value for key, value in told.items() if type(value) is type(getattr(self, key))})

    def attributes(self) -> dict[str, str]:
        """Node attributes, by which an image can be made again."""
        return {
            "Any2all.Sampler": self.sampler,
            "Any2all.Steps": str(self.steps),
            "Any2all.Samples": str(self.samples),
            "Any2all.Seed": str(self.seed),
            "Any2all.Preset": self.preset,
            "Any2all.PriorSHA256": self.prior_sha256,
            "Any2all.PriorVersion": self.prior_version,
            "Any2all.Server": self.server,
            "Any2all.Inputs": json.dumps(dict(self.inputs), ensure_ascii=False, sort_keys=True),
            "Any2all.Software": ", ".join(filter(None, (self.software, self.filled_by))),
        }


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


@dataclass(frozen=True)
class Plan:
    """One volume to be made. ``role``: synthetic, reconstructed, std or sample; ``origin``: one of the first two.

    ``number`` counts the samples of a modality from 1.
    """

    modality: ModalityInfo
    role: str
    origin: str
    number: int
    file: Path

    @property
    def name(self) -> str:
        """What the volume is called, so that nobody takes it for an acquired one."""
        kinds = {"synthetic": "synthesised", "std": "uncertainty (std)", "sample": f"sample {self.number}"}
        return f"{self.modality.name} · {kinds.get(self.role, self.role)} · Any2all"

    @property
    def description(self) -> str:
        """DICOM's Series Description: at most 64 plain characters."""
        kind = {"std": " std", "sample": f" sample {self.number}"}.get(self.role, "")
        text = f"{CREATED[self.origin]} Any2all {self.modality.name}{kind}"
        return text.encode("ascii", "replace").decode()[:64]

    def attributes(self) -> dict[str, str]:
        return {
            outputs.ROLE: self.role,
            outputs.MODALITY: self.modality.name,
            outputs.UNITS: self.modality.units,
            outputs.CAPTION: self.modality.caption,
            DESCRIPTION: self.description,
            "DICOM.Modality": DICOM_KINDS.get(self.modality.kind, "OT"),
        }


def show_pieces(
    scene: slicer.vtkMRMLScene,
    folder: Path | str,
    results: Sequence[ResultInfo],
    stack: Sequence[ModalityInfo],
    facts: RunFacts,
    sent: Path | None,
    measured: Collection[str],
    reference: str = "",
) -> Generator[None, None, list[Output]]:
    """Make the nodes of a finished job, in a folder of their own, each with its display and its origin.

    In pieces, so that a GUI can live in between; the scene hears of it in the last one only.

    Args:
        folder: where the job's files are.
        results: of the job.
        sent: the file, as it was sent, of the volume on whose grid the results lie, wherever that volume is by now;
            None where that grid is another one, as a raw file's: then the results have to agree with each other.
        measured: modalities of which data was measured: their outputs are reconstructed, not synthesised.
        reference: node id of the volume that the outputs are compared with; '' for a raw file.

    Returns:
        The outputs, as ``StopIteration.value``.

    Raises:
        ValueError: in words; a file is missing, broken, off the grid that was sent, or holds voxels that are no
            numbers. The scene is as it was then.
    """
    plans = planned(Path(folder), results, stack, measured)
    grid = None if sent is None else (*nifti.grid_of(sent), "the image that was sent")
    volumes = []
    for plan in plans:  # every file is good before the first node comes into the scene
        array, affine = yield from nifti.reading(plan.file)
        yield from _checking(plan, array)
        _check(plan, array, affine, grid)
        grid = grid or (affine, array.shape[::-1], f"the result '{plan.name}'")
        attributes = {**facts.as_told(nifti.origin_of(plan.file)).attributes(), **plan.attributes()}
        look = display.look_of(plan.modality, plan.role, plan.origin, array)
        yield
        volumes.append(Volume(plan, _node(array, affine, attributes), look))
        yield
    return _added(scene, volumes, reference)


@dataclass(frozen=True)
class Volume:
    """One volume that is ready for the scene."""

    plan: Plan
    node: slicer.vtkMRMLScalarVolumeNode
    look: display.Look


def planned(
    folder: Path, results: Sequence[ResultInfo], stack: Sequence[ModalityInfo], measured: Collection[str]
) -> list[Plan]:
    """What is to be made, in stack order: of each modality the mean, the std, the samples. Raises ValueError."""
    plans = []
    for modality in stack:
        origin = "reconstructed" if modality.name in measured else "synthetic"
        for kind in ("mean", "std", "sample"):
            named = [item.name for item in results if (item.modality, item.role) == (modality.name, kind)]
            if len(named) > 1 and kind != "sample":
                raise ValueError(f"The server sent {len(named)} volumes as the {kind} of {modality.name}.")
            role = origin if kind == "mean" else kind
            plans += [Plan(modality, role, origin, n, _file(folder, name)) for n, name in enumerate(named, 1)]
    shown = {plan.modality.name for plan in plans if plan.role == plan.origin}
    without = sorted({item.modality for item in results} - shown)
    if without:
        raise ValueError(f"The server sent no image of {', '.join(without)}.")
    if not plans:
        raise ValueError("The server sent no volume.")
    return plans


def _file(folder: Path, name: str) -> Path:
    """Where the client has put a result: a folder in its name has become part of the file's name."""
    flat = folder / name.replace("/", "_")
    return flat if flat.exists() else folder / name


Grid = tuple  # (world affine (4, 4), shape (I, J, K), in words whose)


def _checking(plan: Plan, array: np.ndarray) -> Iterator[None]:
    """Whether voxels can be what they are said to be, some layers at a time."""
    layers = max(1, VOXELS_AT_ONCE // max(1, array[0].size))
    for start in range(0, len(array), layers):
        some = array[start : start + layers]
        if not np.isfinite(some).all():
            raise ValueError(f"The result '{plan.name}' holds voxels that are no numbers.")
        if plan.role == "std" and some.min() < 0:
            raise ValueError(f"The result '{plan.name}' holds uncertainties below zero.")
        yield


def _check(plan: Plan, array: np.ndarray, affine: np.ndarray, grid: Grid | None) -> None:
    if grid is None:
        return
    wanted, shape, whose = grid
    if array.shape[::-1] != tuple(shape):
        sizes = " instead of ".join(" × ".join(str(n) for n in s) for s in (array.shape[::-1], shape))
        raise ValueError(f"The result '{plan.name}' does not lie on the grid of {whose}: it has {sizes} voxels.")
    off = _apart_mm(affine, wanted, shape)
    if off > SAME_MM:
        raise ValueError(f"The result '{plan.name}' does not lie on the grid of {whose}: it is {off:.3g} mm off.")


def _apart_mm(first: np.ndarray, second: np.ndarray, shape: tuple[int, ...]) -> float:
    """How far two grids of one shape (I, J, K) are apart, at the corner where that is most."""
    return float(np.linalg.norm(corners(first, shape) - corners(second, shape), axis=1).max())


def is_moved(node: slicer.vtkMRMLScalarVolumeNode, sent: Path) -> bool:
    """Whether a volume has another grid by now than the file that was sent of it."""
    affine, shape = nifti.grid_of(sent)
    if node.GetImageData() is None or shape_of(node) != shape or not is_placed_linearly(node):
        return True
    return _apart_mm(world_affine(node), affine, shape) > SAME_MM


def _added(scene: slicer.vtkMRMLScene, volumes: Sequence[Volume], reference: str) -> list[Output]:
    """Everything in the scene, in a folder; taken out again when anything fails on the way."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    names = unique_names([volume.plan.name for volume in volumes], _names(scene))
    folder = hierarchy.CreateFolderItem(hierarchy.GetSceneItemID(), f"Any2all {datetime.now():%Y-%m-%d %H:%M:%S}")
    try:
        for volume, name in zip(volumes, names):
            volume.node.SetName(name)
            scene.AddNode(volume.node)
            _into_folder(hierarchy, folder, volume)
            display.show(volume.node, volume.look)
        return [output_of(mean) for mean in _linked(volumes, reference)]
    except BaseException:
        for volume in volumes:
            if volume.node.GetScene() is not None:
                _remove(scene, volume.node)
        hierarchy.RemoveItem(folder)
        raise


def _remove(scene: slicer.vtkMRMLScene, node: slicer.vtkMRMLScalarVolumeNode) -> None:
    """Take a volume out, and its display nodes, which the scene would keep."""
    for shown in [node.GetNthDisplayNode(index) for index in range(node.GetNumberOfDisplayNodes())]:
        scene.RemoveNode(shown)
    scene.RemoveNode(node)


def _node(array: np.ndarray, affine: np.ndarray, attributes: Mapping[str, str]) -> slicer.vtkMRMLScalarVolumeNode:
    """A volume that belongs to no scene and to no file yet: saving the scene writes it anew."""
    image, matrix = vtk.vtkImageData(), vtk.vtkMatrix4x4()
    image.SetDimensions(*array.shape[::-1])
    image.GetPointData().SetScalars(numpy_support.numpy_to_vtk(np.ascontiguousarray(array).ravel(), deep=True))
    matrix.DeepCopy([float(value) for value in affine.ravel()])
    node = slicer.vtkMRMLScalarVolumeNode()
    for key, value in attributes.items():  # before the scene hears of it, so that nobody takes it for an input
        node.SetAttribute(key, value)
    node.SetIJKToRASMatrix(matrix)
    node.SetAndObserveImageData(image)
    return node


def _into_folder(hierarchy: slicer.vtkMRMLSubjectHierarchyNode, folder: int, volume: Volume) -> None:
    """Slicer's DICOM export takes a series' tags from its item (qSlicerDICOMTagEditorWidget.cxx)."""
    item = hierarchy.GetItemByDataNode(volume.node)
    if item == hierarchy.GetInvalidItemID():
        item = hierarchy.CreateItem(folder, volume.node)
    hierarchy.SetItemParent(item, folder)
    for key, value in volume.plan.attributes().items():
        if key.startswith("DICOM."):
            hierarchy.SetItemAttribute(item, key, value)


def _linked(volumes: Sequence[Volume], reference: str) -> list[slicer.vtkMRMLScalarVolumeNode]:
    """The means, once each refers to its std and samples, and to the reference."""
    means = {v.plan.modality.name: v.node for v in volumes if v.plan.role == v.plan.origin}
    for volume in volumes:
        mean, node_id = means[volume.plan.modality.name], volume.node.GetID()
        if volume.plan.role == "std":
            mean.SetNodeReferenceID(outputs.STD, node_id)
        elif volume.plan.role == "sample":
            mean.AddNodeReferenceID(outputs.SAMPLE, node_id)
        else:
            mean.SetNodeReferenceID(outputs.REFERENCE, reference or None)
    return list(means.values())


def unique_names(names: Sequence[str], taken: Collection[str]) -> list[str]:
    """Each name, with " (2)", " (3)" … behind all of them where one is taken: a run keeps one number."""
    number = 1
    while {_numbered(name, number) for name in names} & set(taken):
        number += 1
    return [_numbered(name, number) for name in names]


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name} ({number})"


def _names(scene: slicer.vtkMRMLScene) -> set[str]:
    return {node.GetName() for node in nodes_by_class(scene, "vtkMRMLVolumeNode")}
