"""What Any2all has put into a scene, told by attributes and references that are saved with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import slicer

from .nodes import nodes_by_class

ROLE = "Any2all.Role"  # synthetic, reconstructed, std or sample: of every volume that this module has made
MODALITY = "Any2all.Modality"
UNITS = "Any2all.Units"
CAPTION = "Any2all.Caption"
STD = "Any2all.Std"  # references of the mean to the volumes that belong to it
SAMPLE = "Any2all.Sample"
REFERENCE = "Any2all.Reference"  # reference of the mean to the volume on whose grid it lies
MEANS = ("synthetic", "reconstructed")
CREATED = {"synthetic": "SYNTHETIC", "reconstructed": "RECONSTRUCTED"}


@dataclass(frozen=True)
class Output:
    """One modality that was filled in. ``role``: synthetic or reconstructed; ``std_id`` is '' where there is none.

    ``caption``: what the image cannot show, or ''. ``reference_id``: the volume on whose grid it lies, or '' where that
    is not known, was a raw file or has left the scene.
    """

    modality: str
    role: str
    mean_id: str
    std_id: str
    sample_ids: tuple[str, ...]
    caption: str
    units: str
    reference_id: str = ""

    @property
    def ids(self) -> tuple[str, ...]:
        """Node ids of all its volumes."""
        return tuple(node_id for node_id in (self.mean_id, self.std_id, *self.sample_ids) if node_id)


def find_outputs(scene: slicer.vtkMRMLScene) -> list[Output]:
    """The outputs that the scene holds, in its order; of a std or sample without its mean nothing is known."""
    volumes = nodes_by_class(scene, "vtkMRMLScalarVolumeNode")
    return [output_of(node) for node in volumes if node.GetAttribute(ROLE) in MEANS]


def output_of(mean: slicer.vtkMRMLScalarVolumeNode) -> Output:
    """The output to which a mean belongs."""
    std, reference = mean.GetNodeReference(STD), mean.GetNodeReference(REFERENCE)
    samples = [mean.GetNthNodeReference(SAMPLE, i) for i in range(mean.GetNumberOfNodeReferences(SAMPLE))]
    texts: Mapping[str, str] = {key: mean.GetAttribute(key) or "" for key in (MODALITY, ROLE, CAPTION, UNITS)}
    return Output(
        modality=texts[MODALITY],
        role=texts[ROLE],
        mean_id=mean.GetID(),
        std_id=std.GetID() if std is not None else "",
        sample_ids=tuple(node.GetID() for node in samples if node is not None),
        caption=texts[CAPTION],
        units=texts[UNITS],
        reference_id=reference.GetID() if reference is not None else "",
    )
