"""What a study gives, read and brought into one world: images and raw data, each with its grid and intensity scale."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import nibabel as nib
import numpy as np
from nibabel import orientations

from .degraded import DegradedImage, read_degraded
from .errors import Any2allError
from .geometry import Grid, Volume, canonical, check_overlap, read_volume, resample
from .geometry.grid import CANONICAL_CODES
from .intensity import head_mask, scale_of
from .kspace.acquisition import Acquisition
from .kspace.doubts import doubts
from .kspace.formats import RawKspace, RawSamples, coil_maps_in, read_coil_maps, read_kspace
from .kspace.noncartesian import NonCartesianAcquisition
from .kspace.orientation import oriented
from .kspace.prepare import prepare
from .kspace.reconstruct import first_reconstruction
from .kspace.simulate import simulate_kspace
from .registration import register_rigid
from .stack import Stack
from .study import ModalitySpec, StudySpec


@dataclass(frozen=True, eq=False)
class GivenImage:
    """An available image. ``volume`` is canonical and in the reference's world; ``scale`` is its units per u."""

    name: str
    volume: Volume
    mask: np.ndarray
    scale: float

    @property
    def grid(self) -> Grid:
        return self.volume.grid


@dataclass(frozen=True, eq=False)
class RawData:
    """Undersampled k-space. ``first`` is a classical reconstruction on the acquisition's grid.

    ``truth`` is the image that the k-space was simulated from, in its units, or None for measured data.
    """

    name: str
    acquisition: Acquisition | NonCartesianAcquisition
    first: Volume
    mask: np.ndarray
    scale: float
    truth: Volume | None

    @property
    def grid(self) -> Grid:
        """The acquisition grid: canonical where its slices are transverse, else in its own order of axes."""
        return self.first.grid

    @property
    def transverse(self) -> bool:
        """Whether its slices lie as the prior's do, if not exactly."""
        return self.grid.codes == CANONICAL_CODES


@dataclass(frozen=True, eq=False)
class Inputs:
    """All that was given, in stack order; ``reference`` fixes the world, in its own file's axis order."""

    images: tuple[GivenImage, ...]
    raw: tuple[RawData, ...]
    reference: Volume
    warnings: tuple[str, ...] = ()
    degraded: tuple[DegradedImage, ...] = ()


def read_inputs(spec: StudySpec, stack: Stack) -> Inputs:
    """Read every file of a study; raw data gets coil maps, phase, noise and scale from itself (METHOD §5).

    Raises:
        Any2allError: a file that cannot be used, named by its study key.
    """
    volumes = {
        n: read_volume(spec.modalities[n].file, f"modalities.{n}.file") for n in (*spec.available, *spec.degraded)
    }
    images = tuple(_given_image(name, canonical(volumes[name]), stack) for name in spec.available)
    found = [read_degraded(spec.modalities[n], canonical(volumes[n]), stack[n]) for n in spec.degraded]
    degraded = tuple(image for image, _ in found)
    given = {image.name: image.volume.grid for image in (*images, *degraded)}
    raw = _raw_inputs(spec, stack, given)
    reference = volumes.get(spec.reference)
    if reference is None:
        item = next(r for r in raw if r.name == spec.reference)
        file = spec.modalities[item.name].file
        reference = read_volume(file, f"modalities.{item.name}.file") if file else item.first
    notes = [f"{item.name}: {note}" for item in raw for note in item.acquisition.notes]
    notes += [note for _, more in found for note in more]
    return Inputs(images, raw, reference, tuple(notes), degraded)


def _raw_inputs(spec: StudySpec, stack: Stack, given: Mapping[str, Grid]) -> tuple[RawData, ...]:
    """Raw data, that of the reference first: what says nothing of where it lies is laid about the reference."""
    centre, made = given.get(spec.reference, next(iter(given.values()), None)), {}
    for name in sorted(spec.undersampled, key=lambda name: name != spec.reference):
        made[name] = _raw_data(spec.modalities[name], stack, centre)
        if name == spec.reference:
            centre = canonical(made[name].first).grid
    return tuple(made[name] for name in spec.undersampled)


def _given_image(name: str, volume: Volume, stack: Stack) -> GivenImage:
    mask = head_mask(volume.data)
    return GivenImage(name, volume, mask, _scale(name, volume.data, mask, stack, "file"))


def _scale(name: str, data: np.ndarray, mask: np.ndarray, stack: Stack, what: str) -> float:
    try:
        return scale_of(data, mask, stack[name].normalisation)
    except Any2allError as error:
        raise Any2allError(error.message, key=f"modalities.{name}.{what}", hint=error.hint, code=error.code) from None


def _raw_data(modality: ModalitySpec, stack: Stack, centre: Grid | None) -> RawData:
    if modality.simulate is not None:
        acquisition, grid, truth = _simulated(modality, stack)
        what = "file"
    else:
        acquisition, codes = _measured(modality)
        grid, truth, what = _raw_grid(modality, acquisition, codes, centre), None, "kspace"
    first = Volume(first_reconstruction(acquisition), grid)
    if truth is None:
        acquisition.notes.extend(doubts(acquisition, first.data))
    mask = head_mask(first.data)
    return RawData(modality.name, acquisition, first, mask, _scale(modality.name, first.data, mask, stack, what), truth)


def _simulated(modality: ModalitySpec, stack: Stack) -> tuple[Acquisition | NonCartesianAcquisition, Grid, Volume]:
    """k-space of an image on its own grid; the simulation's noise is in u, the k-space in the file's units."""
    truth = canonical(read_volume(modality.file, f"modalities.{modality.name}.file"))
    scale = _scale(modality.name, truth.data, head_mask(truth.data), stack, "file")
    s = modality.simulate
    with _keys_of(modality):
        acquisition = simulate_kspace(
            truth.data, s.coils, s.acceleration, s.acs_lines, s.noise_std * scale, s.seed, s.mask, s.phase
        )
    return acquisition, truth.grid, truth


def _measured(modality: ModalitySpec) -> tuple[Acquisition | NonCartesianAcquisition, str]:
    """The data, and where its axes grow to."""
    key = f"modalities.{modality.name}"
    raw = read_kspace(modality.kspace, f"{key}.kspace", modality.trajectory)
    if modality.coil_maps is not None and isinstance(raw, RawSamples):
        raw = raw.with_maps(coil_maps_in(modality.coil_maps, f"{key}.coil_maps"), f"{key}.coil_maps")
    elif modality.coil_maps is not None:
        maps = read_coil_maps(modality.coil_maps, raw.kspace, f"{key}.coil_maps")
        raw = replace(raw, coil_maps=maps)
    placed, codes = _placed(raw, modality)
    with _keys_of(modality):
        return prepare(placed, modality.noise_std), codes


def _placed(raw: RawKspace | RawSamples, modality: ModalitySpec) -> tuple[RawKspace | RawSamples, str]:
    """Raw data with the geometry that counts: its file's, unless the study says otherwise or the file says nothing.

    Without the file's, the axes grow to where ``orientation`` says (else the file, where it says anything), after
    transverse slices were turned to (S, P, L); where the data lies, `_raw_grid` takes from the reference.
    """
    known = raw.affine is not None and modality.geometry == "header"
    if known and (modality.voxel_size_mm or modality.orientation):
        note = "the file says where it lies: voxel_size_mm and orientation of the study were not used"
        raw = replace(raw, notes=(*raw.notes, note))
    if known:
        return raw, "".join(CANONICAL_CODES)
    raw = replace(raw, voxel_size_mm=modality.voxel_size_mm or raw.voxel_size_mm)
    if modality.orientation is not None:
        raw = replace(raw, affine=nib.affines.from_matvec(_directions(modality.orientation)))
    raw = oriented(raw)
    codes = CANONICAL_CODES if raw.affine is None else nib.aff2axcodes(raw.affine)
    return replace(raw, affine=None), "".join(codes)


def _directions(codes: Sequence[str]) -> np.ndarray:
    """RAS unit vectors (3, 3), one column for each code."""
    axes = orientations.axcodes2ornt(codes)
    directions = np.zeros((3, 3))
    directions[axes[:, 0].astype(int), [0, 1, 2]] = axes[:, 1]
    return directions


@contextmanager
def _keys_of(modality: ModalitySpec) -> Iterator[None]:
    """What `kspace` calls ``coil_maps`` or ``simulate.acs_lines`` is that key of this modality in the study."""
    try:
        yield
    except Any2allError as error:
        key = f"modalities.{modality.name}.{error.key}"
        raise Any2allError(
            error.message, key=key, value=error.value, allowed=error.allowed, hint=error.hint, code=error.code
        ) from None


def _raw_grid(
    modality: ModalitySpec, acquisition: Acquisition | NonCartesianAcquisition, codes: str, centre: Grid | None
) -> Grid:
    """Where the file says; else its axes grow to ``codes`` in the reference image's directions, about its centre (those
    of the first image for raw data that is the reference itself, of the world where there is none)."""
    shape = (acquisition.kspace.shape[0], *acquisition.matrix)
    if acquisition.affine is not None:
        return Grid(shape, acquisition.affine)
    if acquisition.voxel_size_mm is None:
        raise Any2allError(
            "this raw data says nothing of its voxel size",
            key=f"modalities.{modality.name}.voxel_size_mm",
            allowed="[H, W, slice] in mm",
        )
    h, w, z = acquisition.voxel_size_mm
    directions = _directions(codes)
    if centre is not None:  # which is canonical
        directions = centre.affine[:3, :3] / np.array(centre.spacing_mm) @ _directions(CANONICAL_CODES).T @ directions
    affine = np.eye(4)
    affine[:3, :3] = directions * np.array([z, h, w])
    middle = (np.array(shape) - 1) / 2
    affine[:3, 3] = (np.zeros(3) if centre is None else centre.centre_mm) - affine[:3, :3] @ middle
    return Grid(shape, affine)


def aligned(inputs: Inputs, spec: StudySpec, stack: Stack, seed: int = 0) -> Inputs:
    """Every input in the reference's world: grids are moved by a rigid transform, voxels are left alone.

    Skipped between equal grids and with ``registration: none``. Images that do not overlap at all are refused.
    """
    everything = {item.name: item for item in (*inputs.images, *inputs.raw, *inputs.degraded)}
    volumes = {name: i.first if isinstance(i, RawData) else i.volume for name, i in everything.items()}
    check_overlap({name: v.grid for name, v in volumes.items()}, spec.reference)
    fixed, warnings = volumes[spec.reference], list(inputs.warnings)
    moved: dict[str, Volume] = {}
    for name, volume in volumes.items():
        if name == spec.reference or spec.registration == "none" or volume.grid.same_as(fixed.grid, 1e-3):
            moved[name] = volume
            continue
        if min(volume.grid.shape) < 4 or min(fixed.grid.shape) < 4:
            warnings.append(f"{name} was not registered: it or {spec.reference} has fewer than 4 slices")
            moved[name] = volume
            continue
        result = register_rigid(volume, fixed, seed)
        if result.warning:
            warnings.append(f"{name}: {result.warning}")
        moved[name] = Volume(volume.data, volume.grid.moved(result.transform))
    images = tuple(replace(image, volume=moved[image.name]) for image in inputs.images)
    raw = tuple(_moved_raw(item, moved[item.name]) for item in inputs.raw)
    degraded = tuple(replace(image, volume=moved[image.name]) for image in inputs.degraded)
    return Inputs(images, raw, inputs.reference, tuple(warnings), degraded)


def with_thin_slices(inputs: Inputs, reference: str, slice_mm: float) -> Inputs:
    """A lowres reference with slices ``slice_mm`` apart over the same extent: what is to be found lies between its own.

    Every other reference stays as it is. Call it on `aligned` inputs: a reference does not move.
    """
    lowres = {image.name for image in inputs.degraded if image.status == "lowres"}
    thick = inputs.reference.grid
    axis = int(np.argmax(thick.spacing_mm))
    if reference not in lowres or thick.spacing_mm[axis] <= slice_mm:
        return inputs
    shape, step, first = list(thick.shape), np.ones(3), np.zeros(3)
    step[axis] = slice_mm / thick.spacing_mm[axis]
    shape[axis] = max(1, round(thick.shape[axis] / step[axis]))
    first[axis] = (thick.shape[axis] - 1 - (shape[axis] - 1) * step[axis]) / 2
    grid = thick.scaled((shape[0], shape[1], shape[2]), first, step)
    note = f"{reference} is the reference and lowres: results lie on its grid with slices {slice_mm:g} mm apart"
    return replace(inputs, reference=resample(inputs.reference, grid), warnings=(*inputs.warnings, note))


def _moved_raw(item: RawData, first: Volume) -> RawData:
    truth = None if item.truth is None else Volume(item.truth.data, first.grid)
    return replace(item, first=first, truth=truth)
