"""Render a head: label map + parameters + grid -> a stack of images in units, as scanners would have acquired it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..stack import Stack
from .anatomy import DISTANCE_STEPS_PER_MM, Anatomy, anatomy_of
from .contrast import Contrast, check_stack, ct_contrast, mr_contrast, pet_contrast
from .field_strength import TABLE_TESLA
from .fields import SmoothField, generator
from .finish import add_rician_noise, band_limited_noise, bias_field, blur_in_plane, gaussian_rows
from .labels import LEFT_RIGHT_PAIRS, HeadLabels, mirrored_codes
from .lesions import lesion_maps
from .masses import DEPHASING_STEPS
from .parameters import MR_RECIPES, HeadParameters, draw_parameters
from .sampling import PointSampler, take
from .tissues import INDEX, TISSUES

__all__ = ["HeadParameters", "RenderGrid", "Rendering", "draw_parameters", "render"]

POINTS_PER_CHUNK = {"cpu": 400_000, "cuda": 20_000_000}
PET_STEP_MM = 2.5
LESION_TISSUES = ("white_lesion", "gliosis", "infarct", "oedema", "tumour", "necrosis")
LEFT_VENTRICLE, RIGHT_VENTRICLE, CSF_CODE = 4, 43, 24
FINDINGS = ("ct", "bleed")
SPIN_ECHOES = ("T2", "T2FLAIR")
# What gives way to fluid where the ventricles widen.
BESIDE_VENTRICLE = (
    "white_matter", "white_lesion", "perivascular", "caudate", "accumbens", "thalamus", "deep_grey", "hippocampus",
    "amygdala",
)  # fmt: skip
ATROPHY_KNOT_MM = 28.0
# Of a pixel inside the mask of a stripped head; more than half, lest half a pixel of bone stays as a bright rim in CT.
KEPT_FRACTION = 0.75
FOLIA_MM, FOLIA_FLUID = 4.2, 0.4
TEXTURE_KNOTS_MM = ((4.0, 0.55), (11.0, 0.55), (70.0, 0.6))


@dataclass(frozen=True)
class RenderGrid:
    """Axial slices. ``matrix`` (H, W), ``spacing_mm`` (h, w), ``slice_positions_mm`` offsets upward from the head's
    centre (ascending), ``slice_thickness_mm``, ``shift_mm`` moves the field of view (back, left)."""

    matrix: tuple[int, int]
    spacing_mm: tuple[float, float]
    slice_positions_mm: tuple[float, ...]
    slice_thickness_mm: float
    shift_mm: tuple[float, float] = (0.0, 0.0)

    def positions(self, axis: int) -> np.ndarray:
        """Pixel centres in mm along h (0) or w (1), relative to the head's centre."""
        n = self.matrix[axis]
        return (np.arange(n) - (n - 1) / 2) * self.spacing_mm[axis] + self.shift_mm[axis]

    @property
    def affine(self) -> np.ndarray:
        """4x4 RAS of (z, h, w) indices; the head's centre is the origin. Uneven slices: their mean distance."""
        z = np.asarray(self.slice_positions_mm, dtype=float)
        step = float(np.diff(z).mean()) if len(z) > 1 else self.slice_thickness_mm
        affine = np.zeros((4, 4))
        affine[2, 0], affine[1, 1], affine[0, 2] = step, -self.spacing_mm[0], -self.spacing_mm[1]
        affine[:, 3] = (-self.positions(1)[0], -self.positions(0)[0], z[0], 1.0)
        return affine


@dataclass(frozen=True)
class Rendering:
    """``images`` float32 (Z, M, H, W) in units (MR a.u., CT HU, PET SUVr), M in stack order; ``labels`` int16 (Z, H, W)
    at pixel centres, zero where a skull-stripped head is cut away; ``affine`` 4x4 RAS of (z, h, w); ``parameters``
    JSON-able."""

    images: Tensor
    labels: Tensor
    affine: np.ndarray
    parameters: dict


def _sub_positions(centres: np.ndarray, width: float, count: int, device: torch.device) -> Tensor:
    """Centres split into ``count`` sub-samples that fill ``width``: (len(centres) * count,)."""
    offsets = ((np.arange(count) + 0.5) / count - 0.5) * width
    return torch.as_tensor((centres[:, None] + offsets).ravel(), dtype=torch.float32, device=device)


@dataclass(frozen=True)
class _Sample:
    """What lies at the points of a grid (Z, H, W): voxel ``index``, class ``tissue``, the fields ``texture`` (2, Z, H,
    W), and the share of every lesion that the head has."""

    index: Tensor
    tissue: Tensor
    texture: Tensor
    shares: dict[str, Tensor]


class _Scene:
    """One head ready to be sampled: deformation, textures, lesions and contrast tables on a device."""

    def __init__(self, head: HeadLabels, parameters: HeadParameters, stack: Stack, device: torch.device) -> None:
        self.parameters, self.stack, self.device = parameters, stack, device
        self.anatomy: Anatomy = anatomy_of(head)
        self.points = PointSampler(self.anatomy, parameters, device)
        rng = generator(parameters.seed, 2)
        self.textures = [
            (weight * (parameters.regional if knot > 50 else 1.0), SmoothField(rng, knot, 2, device))
            for knot, weight in TEXTURE_KNOTS_MM
        ]
        self.lesions = lesion_maps(self.anatomy, parameters).flat(device)
        self.fractions = (*LESION_TISSUES, *(f"{kind}_fraction" for kind in FINDINGS), "bleed_spin_echo")
        self.beside_ventricle = torch.tensor([t.name in BESIDE_VENTRICLE for t in TISSUES], device=device)
        self.unevenness = SmoothField(generator(parameters.seed, 7), ATROPHY_KNOT_MM, 1, device)
        distance = torch.arange(256, dtype=torch.float32, device=device) / DISTANCE_STEPS_PER_MM
        strength, reach_mm = parameters.susceptibility
        self.air_loss = torch.exp(-strength * torch.exp(-distance / reach_mm))
        self.cupping = parameters.ct_cupping_hu * torch.exp(-distance / 8.0)
        self.contrasts = {name: self._contrast(name) for name in stack.names}

    def _contrast(self, name: str) -> Contrast:
        make = {"CT": ct_contrast, "PET": pet_contrast}.get(name)
        contrast = make(self.parameters) if make else mr_contrast(self.parameters, name)
        return Contrast(*(table.to(self.device) for table in (contrast.level, contrast.by_a, contrast.by_b)))

    def sample(self, z: Tensor, h: Tensor, w: Tensor) -> _Sample:
        """The head at the points of an axis-aligned grid."""
        index = self.points.index(z, h, w)
        texture = sum(weight * field(z, h, w) for weight, field in self.textures)
        shares = {n: take(v, index).float().div_(255.0) for n, v in self.lesions.items() if n in self.fractions}
        whole = self._tissue(index, texture)
        if not any(self.parameters.atrophy_mm):
            return _Sample(index, whole, texture, shares)
        tissue = self._atrophied(whole, index, texture, self.unevenness(z, h, w)[0])
        for name in filter(shares.__contains__, LESION_TISSUES):
            shares[name].mul_(tissue == whole)
        return _Sample(index, tissue, texture, shares)

    def _tissue(self, index: Tensor, texture: Tensor) -> Tensor:
        """Class per point; the label map's soft tissue divides into fat below the skin, and muscle with fat between."""
        tissue = self.points.feature("tissue", index).long()
        depth = self.points.feature("surface", index).float() / DISTANCE_STEPS_PER_MM
        under_skin = depth < self.parameters.fat_thickness_mm * (1 + 0.3 * texture[0])
        fat = (tissue == INDEX["muscle"]) & (under_skin | (texture[1] > 1.1))
        return torch.where(fat, INDEX["fat"], tissue)

    def _atrophied(self, tissue: Tensor, index: Tensor, texture: Tensor, unevenness: Tensor) -> Tensor:
        """Fluid in place of the tissue next to the ventricles, and of cortex next to the fluid outside the brain."""
        uneven = (1 + 0.35 * unevenness + 0.25 * texture[1]).clamp_(min=0) * DISTANCE_STEPS_PER_MM
        ventricular, sulcal = self.parameters.atrophy_mm
        gives_way = take(self.beside_ventricle, tissue) & (self.points.feature("wall", index) < ventricular * uneven)
        tissue = torch.where(gives_way, INDEX["ventricle"], tissue)
        thinned = (tissue == INDEX["cortex"]) & (self.points.feature("sulcus", index) < sulcal * uneven)
        return torch.where(thinned, INDEX["csf"], tissue)

    def tissue_signal(self, name: str, at: _Sample) -> Tensor:
        """Signal of one modality at points; lesions replace their share of the tissue."""
        c, (a, b) = self.contrasts[name], at.texture
        signal = take(c.level, at.tissue).addcmul_(take(c.by_a, at.tissue), a).addcmul_(take(c.by_b, at.tissue), b)
        for lesion in filter(at.shares.__contains__, LESION_TISSUES):
            i = INDEX[lesion]
            signal = torch.lerp(signal, c.level[i] + c.by_a[i] * a + c.by_b[i] * b, at.shares[lesion])
        return signal.clamp_(min=0)

    def signal(self, name: str, at: _Sample, folia: Tensor) -> Tensor:
        """``tissue_signal`` with what only this modality sees: dephasing near air and bleeds, or CT's findings."""
        signal = torch.lerp(self.tissue_signal(name, at), self.contrasts[name].level[INDEX["csf"]], folia)
        if name == "T2star":
            signal = signal * take(self.air_loss, self.points.feature("cavity", at.index).long())
            if "bleed_dephasing" in self.lesions:
                exponent = self.parameters.field_tesla / TABLE_TESLA / DEPHASING_STEPS
                signal = signal * torch.exp(-exponent * take(self.lesions["bleed_dephasing"], at.index))
        elif name in SPIN_ECHOES and "bleed_spin_echo" in at.shares:
            signal = signal * (1 - at.shares["bleed_spin_echo"])
        return self._ct_extras(signal, at) if name == "CT" else signal

    def folia(self, at: _Sample, z: Tensor, h: Tensor) -> Tensor:
        """Share of fluid between the folia of the cerebellar cortex, which the label maps show as one block."""
        phase = (0.8 * z[:, None, None] + 0.6 * h[:, None]) * (2 * math.pi / FOLIA_MM) + 1.5 * at.texture[0]
        return torch.sin(phase).clamp_(min=0).mul_(FOLIA_FLUID).mul_(at.tissue == INDEX["cerebellar_cortex"])

    def _ct_extras(self, signal: Tensor, at: _Sample) -> Tensor:
        """Beam hardening beside bone, the findings that only CT shows, and bleeds."""
        signal = signal + take(self.cupping, self.points.feature("bone", at.index).long()) * (signal > 900)
        for kind in FINDINGS:
            if f"{kind}_hu" in self.lesions:
                hu = take(self.lesions[f"{kind}_hu"], at.index).float() + 1000.0
                signal = torch.lerp(signal, hu, at.shares[f"{kind}_fraction"])
        return signal

    def kept(self, index: Tensor) -> Tensor:
        """1 where a skull-stripped head keeps its points: brain and fluid within a margin of the brain."""
        inside = torch.tensor([t.intracranial for t in TISSUES], device=self.device)
        tissue = self.points.feature("tissue", index).long()
        distance = self.points.feature("parenchyma", index).float() / DISTANCE_STEPS_PER_MM
        fluid = (tissue == INDEX["ventricle"]) | (distance < self.parameters.strip_margin_mm)
        bone = (tissue == INDEX["cortical_bone"]) | (tissue == INDEX["diploe"]) | (tissue == INDEX["cancellous_bone"])
        return (((distance < 1.5) & ~bone) | (inside[tissue] & fluid)).float()


def _supersampling(grid: RenderGrid) -> tuple[int, int]:
    """Sub-samples (through the slice, in the plane) that keep them near 1-1.5 mm, the label maps' own resolution."""
    through = min(4, max(2, math.ceil(grid.slice_thickness_mm / 1.8)))
    return through, 2 if min(grid.spacing_mm) > 1.8 else 3


def _render_slices(scene: _Scene, grid: RenderGrid, names: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """Partial-volume averaged signals (Z, len(names), H, W) and kept fraction (Z, H, W)."""
    through, plane = _supersampling(grid)
    height, width = grid.matrix
    h = _sub_positions(grid.positions(0), grid.spacing_mm[0], plane, scene.device)
    w = _sub_positions(grid.positions(1), grid.spacing_mm[1], plane, scene.device)
    per_chunk = max(1, POINTS_PER_CHUNK[scene.device.type] // (through * len(h) * len(w)))

    def average(points: Tensor) -> Tensor:
        """Mean over each pixel's sub-samples; several times faster than ``mean`` over three axes."""
        lines = points.view(-1, through, height * plane, width * plane).sum(dim=1)
        lines = lines.view(-1, height, plane, width * plane).sum(dim=2)
        return sum(lines[..., i::plane] for i in range(plane)) / (through * plane * plane)

    images, kept = [], []
    for start in range(0, len(grid.slice_positions_mm), per_chunk):
        centres = np.asarray(grid.slice_positions_mm[start : start + per_chunk], dtype=float)
        z = _sub_positions(centres, grid.slice_thickness_mm, through, scene.device)
        at = scene.sample(z, h, w)
        folia = scene.folia(at, z, h)
        channels = [average(scene.signal(name, at, folia)) for name in names]
        images.append(torch.stack(channels, dim=1))
        kept.append(average(scene.kept(at.index)) if scene.parameters.skull_stripped else torch.ones_like(channels[0]))
    return torch.cat(images), torch.cat(kept)


def _render_pet(scene: _Scene, grid: RenderGrid) -> Tensor:
    """PET (Z, H, W): activity on dense slices, cortical load by region, then the scanner's 3-D Gaussian as matrices."""
    p = scene.parameters
    positions = np.asarray(grid.slice_positions_mm, dtype=float)
    dense = np.arange(positions[0] - 12, positions[-1] + 12 + PET_STEP_MM, PET_STEP_MM)
    z, h, w = (
        torch.as_tensor(v, dtype=torch.float32, device=scene.device)
        for v in (dense, grid.positions(0), grid.positions(1))
    )
    at = scene.sample(z, h, w)
    activity = scene.tissue_signal("PET", at)
    region = SmoothField(generator(p.seed, 5), 45.0, 1, scene.device)(z, h, w)[0]
    grey = (at.tissue == INDEX["cortex"]).float() * (1.0 if p.amyloid_positive else 0.4)
    activity = activity * (1 + p.pet_regional * region.clamp(-2, 2) * grey)
    sigma = p.pet_fwhm_mm / 2.3548
    along_z = gaussian_rows(torch.as_tensor(positions, dtype=torch.float32, device=scene.device), z, sigma)
    blurred = torch.einsum("zd,dhw->zhw", along_z, activity)
    blurred = gaussian_rows(h, h, sigma) @ blurred @ gaussian_rows(w, w, sigma).T
    noise = band_limited_noise(
        blurred.shape, generator(p.seed, 6), [s / v for s, v in zip((sigma, sigma), grid.spacing_mm)], scene.device
    )
    return (blurred + p.pet_noise * blurred.clamp(min=0).sqrt() * noise).clamp_(min=0)


def _finish(scene: _Scene, name: str, image: Tensor, grid: RenderGrid) -> Tensor:
    """The scanner's part: point spread, coil shading, noise (Z, H, W)."""
    p, rng = scene.parameters, generator(scene.parameters.seed, 10 + scene.stack.index(name))
    if name in MR_RECIPES:
        image = blur_in_plane(image, p.mr_blur_px[name]) * bias_field(rng, p.mr_bias[name], grid, scene.device)
        return add_rician_noise(
            image, p.mr_noise[name] * float(scene.contrasts[name].level[INDEX["white_matter"]]), rng
        )
    if name == "CT":
        noise = band_limited_noise(image.shape, rng, [0.5, 0.5], scene.device)
        return blur_in_plane(image, p.ct_blur_px) + p.ct_noise_hu * noise - 1000.0
    return image


@torch.no_grad()
def render(
    head: HeadLabels, parameters: HeadParameters, grid: RenderGrid, stack: Stack, device: torch.device | str = "cpu"
) -> Rendering:
    """Render one head on a grid.

    Equal arguments give equal images; ``amyloid_positive`` changes the PET channel alone. A flipped head's labels name
    its sides as they now lie.

    Raises:
        Any2allError: the stack has a modality without a recipe, or the head has a label without a tissue.
    """
    check_stack(stack)
    device = torch.device(device)
    scene = _Scene(head, parameters, stack, device)
    sliced = tuple(name for name in stack.names if name != "PET")
    signals, kept = _render_slices(scene, grid, sliced)
    channels = {name: _finish(scene, name, signals[:, i], grid) for i, name in enumerate(sliced)}
    if "PET" in stack.names:
        channels["PET"] = _render_pet(scene, grid)
    if parameters.skull_stripped:
        for name, image in channels.items():
            channels[name] = torch.where(kept > KEPT_FRACTION, image, -1000.0 if name == "CT" else 0.0)
    images = torch.stack([channels[name] for name in stack.names], dim=1)
    return Rendering(images, _labels(scene, grid, kept), grid.affine, {**parameters.record(), "head": head.name})


def _ventricle_beside(size: int) -> np.ndarray:
    """Lookup (size,): code of the lateral ventricle on a code's own side."""
    lookup = np.full(size, LEFT_VENTRICLE, dtype=np.int16)
    lookup[[right for _, right in LEFT_RIGHT_PAIRS]] = RIGHT_VENTRICLE
    return lookup


def _labels(scene: _Scene, grid: RenderGrid, kept: Tensor) -> Tensor:
    axes = (np.asarray(grid.slice_positions_mm), grid.positions(0), grid.positions(1))
    z, h, w = (torch.as_tensor(v, dtype=torch.float32, device=scene.device) for v in axes)
    at = scene.sample(z, h, w)
    codes = take(scene.points.codes, at.index)
    if any(scene.parameters.atrophy_mm):
        beside = torch.from_numpy(_ventricle_beside(1024)).to(scene.device)
        changed = at.tissue != take(scene.points.features[0], at.index)
        codes = torch.where(changed & (at.tissue == INDEX["ventricle"]), take(beside, codes.long()), codes)
        codes = torch.where(
            changed & (at.tissue == INDEX["csf"]), torch.tensor(CSF_CODE, dtype=codes.dtype, device=scene.device), codes
        )
    if scene.parameters.pose.flip:
        codes = torch.from_numpy(mirrored_codes(1024)).to(scene.device)[codes.long()]
    return codes * (kept > KEPT_FRACTION)
