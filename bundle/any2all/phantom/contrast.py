"""Per-class signal tables of one head: each modality's level and how it answers to the two texture fields."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import Any2allError
from ..stack import Stack
from .parameters import MR_RECIPES, HeadParameters
from .signal import TissueValues, evaluate
from .tissues import INDEX, NAMES, PROPERTIES, TISSUES

FATTY = {"fat": 1.0, "orbital_fat": 1.0, "diploe": 0.6, "cancellous_bone": 0.6, "skin": 0.25}
RECIPES = (*MR_RECIPES, "CT", "PET")


@dataclass(frozen=True)
class Contrast:
    """Tables over the classes: ``level``, and its change per unit of texture ``a`` (relaxation) and ``b`` (density)."""

    level: Tensor
    by_a: Tensor
    by_b: Tensor


def check_stack(stack: Stack) -> None:
    """Refuse a stack with a modality that has no rendering recipe."""
    unknown = [name for name in stack.names if name not in RECIPES]
    if unknown:
        hint = "train on real stacks alone: a datalist_file, and --dataset_dir '$None'"
        raise Any2allError(
            "no rendering recipe for this modality", key="stack", value=unknown, allowed=RECIPES, hint=hint
        )


def _column(parameters: HeadParameters, name: str) -> Tensor:
    at = PROPERTIES.index(name)
    return torch.tensor([parameters.tissue_values[tissue][at] for tissue in NAMES], dtype=torch.float32)


def _tissue_values(parameters: HeadParameters) -> TissueValues:
    return TissueValues(*(_column(parameters, name) for name in ("t1", "t2", "t2star", "pd")))


def _multipliers(parameters: HeadParameters, settings: dict[str, float | str]) -> Tensor:
    """Fat saturation and flowing blood: what the signal equation of resting tissue does not know."""
    spin_echo = settings["sequence"] in ("spin_echo", "inversion_spin_echo")
    factors = torch.ones(len(TISSUES))
    for i, tissue in enumerate(TISSUES):
        flow = tissue.flow_spin_echo if spin_echo else tissue.flow_gradient
        factors[i] = flow**parameters.flow
        share = FATTY.get(tissue.name, 0.0)
        factors[i] *= 1 - share + share * settings["fat"]
    return factors


def mr_contrast(parameters: HeadParameters, recipe: str) -> Contrast:
    """Tables of an MR modality in its arbitrary units. Texture changes T1, T2 and T2* as more or less water would."""
    settings = parameters.sequences[recipe]
    values = _tissue_values(parameters)
    amount = parameters.texture * torch.tensor([t.texture for t in TISSUES])
    factors = parameters.mr_scale[recipe] * _multipliers(parameters, settings)

    def signal(relaxation: Tensor, density: Tensor) -> Tensor:
        changed = TissueValues(
            values.t1 * (1 + relaxation),
            values.t2 * (1 + relaxation),
            values.t2star * (1 + relaxation),
            values.pd * (1 + density),
        )
        return factors * evaluate(changed, settings)

    none = torch.zeros_like(amount)
    level = signal(none, none)
    return Contrast(level, (signal(amount, none) - signal(-amount, none)) / 2, level * 0.6 * amount)


def ct_contrast(parameters: HeadParameters) -> Contrast:
    """HU above air (+1000), so that air is zero everywhere while rendering."""
    level = _column(parameters, "hu") + 1000.0
    level[INDEX["air"]] = 0.0
    texture = parameters.texture * torch.tensor([t.hu_texture for t in TISSUES])
    return Contrast(level, torch.zeros_like(level), texture)


def pet_contrast(parameters: HeadParameters) -> Contrast:
    """SUVr for the head's amyloid status, normalised to its own cerebellar cortex."""
    level = _column(parameters, "positive" if parameters.amyloid_positive else "negative")
    level = level / level[INDEX["cerebellar_cortex"]]
    return Contrast(level, 0.05 * level, 0.05 * level)
