"""Signal equations of the four MR sequences, for torch tensors of tissue values (times in ms, angles in degrees).

Every function gives the magnitude of the transverse magnetisation for a proton density of ``pd``; the receiver's scale
is arbitrary and is drawn per head and modality.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class TissueValues:
    """Relaxation times in ms and relative proton density, tensors of one shape."""

    t1: Tensor
    t2: Tensor
    t2star: Tensor
    pd: Tensor


def mprage(
    tissue: TissueValues, *, ti: float, tr: float, te: float, flip_deg: float, echo_spacing: float, echoes: int
) -> Tensor:
    """Inversion recovery with a train of small flip angles, sampled at the train's centre.

    Steady state of: inversion, recovery for ``ti - echoes/2 * echo_spacing``, ``echoes`` pulses that drive Mz to
    M* with T1* (Deichmann et al., NeuroImage 2000, eqs. 1-4), recovery until ``tr``.
    """
    alpha = math.radians(flip_deg)
    train = echoes * echo_spacing
    t1_star = 1.0 / (1.0 / tissue.t1 - math.log(math.cos(alpha)) / echo_spacing)
    m_star = (1 - torch.exp(-echo_spacing / tissue.t1)) / (1 - torch.exp(-echo_spacing / t1_star))
    before = torch.exp(-(ti - train / 2) / tissue.t1)
    after = torch.exp(-(tr - ti - train / 2) / tissue.t1)
    half, whole = torch.exp(-train / 2 / t1_star), torch.exp(-train / t1_star)
    # Mz just before inversion solves M = 1 + (m* + (1 - (1 + M) before - m*) whole - 1) after.
    offset = 1 + (m_star + (1 - before - m_star) * whole - 1) * after
    mz = offset / (1 + before * whole * after)
    at_train = 1 - (1 + mz) * before
    centre = m_star + (at_train - m_star) * half
    return tissue.pd * (centre * math.sin(alpha) * torch.exp(-te / tissue.t2star)).abs()


def spin_echo(tissue: TissueValues, *, tr: float, te: float) -> Tensor:
    """(Turbo) spin echo: PD (1 - exp(-TR/T1)) exp(-TE/T2)."""
    return tissue.pd * (1 - torch.exp(-tr / tissue.t1)) * torch.exp(-te / tissue.t2)


def inversion_spin_echo(tissue: TissueValues, *, tr: float, te: float, ti: float) -> Tensor:
    """FLAIR: PD |1 - 2 exp(-TI/T1) + exp(-TR/T1)| exp(-TE/T2) (Hajnal et al., JCAT 1992)."""
    longitudinal = 1 - 2 * torch.exp(-ti / tissue.t1) + torch.exp(-tr / tissue.t1)
    return tissue.pd * longitudinal.abs() * torch.exp(-te / tissue.t2)


def spoiled_gradient_echo(tissue: TissueValues, *, tr: float, te: float, flip_deg: float) -> Tensor:
    """PD sin(a) (1 - E1) / (1 - cos(a) E1) exp(-TE/T2*), E1 = exp(-TR/T1) (Ernst)."""
    alpha = math.radians(flip_deg)
    e1 = torch.exp(-tr / tissue.t1)
    return tissue.pd * math.sin(alpha) * (1 - e1) / (1 - math.cos(alpha) * e1) * torch.exp(-te / tissue.t2star)


FLUID_T1 = 4300.0


def null_time(t1: float, tr: float) -> float:
    """TI in ms at which ``inversion_spin_echo`` nulls a tissue: T1 ln(2 / (1 + exp(-TR/T1)))."""
    return t1 * math.log(2.0 / (1.0 + math.exp(-tr / t1)))


def _draw_mprage(rng: np.random.Generator) -> dict[str, float | str]:
    return {
        "sequence": "mprage",
        "ti": rng.uniform(850, 1050),
        "tr": rng.uniform(1900, 2400),
        "te": rng.uniform(2.2, 4.0),
        "flip_deg": rng.uniform(7.5, 9.5),
        "echo_spacing": rng.uniform(6.5, 8.0),
        "echoes": int(rng.integers(160, 193)),
    }


def _draw_t1_spin_echo(rng: np.random.Generator) -> dict[str, float | str]:
    return {"sequence": "spin_echo", "tr": rng.uniform(450, 700), "te": rng.uniform(8, 15)}


def draw_sequences(rng: np.random.Generator) -> dict[str, dict[str, float | str]]:
    """Sequence settings of one head, per modality of the rendering recipe, around common clinical 3 T protocols.

    T1 is an MPRAGE in three heads of four, else a spin echo (as clinical MS protocols have). ``fat`` multiplies the
    signal of fatty tissue: near 0.2 with fat saturation.
    """
    flair_tr = rng.uniform(8000, 11000)
    sequences = {
        "T1": _draw_mprage(rng) if rng.random() < 0.75 else _draw_t1_spin_echo(rng),
        "T2": {"sequence": "spin_echo", "tr": rng.uniform(3800, 6500), "te": rng.uniform(80, 115)},
        "T2FLAIR": {
            "sequence": "inversion_spin_echo",
            "tr": flair_tr,
            "te": rng.uniform(90, 130),
            # Protocols null fluid nearly, not exactly.
            "ti": null_time(FLUID_T1 * rng.uniform(0.93, 1.05), flair_tr),
        },
        "T2star": {
            "sequence": "spoiled_gradient_echo",
            "tr": rng.uniform(500, 900),
            "te": rng.uniform(16, 24),
            "flip_deg": rng.uniform(16, 25),
        },
    }
    saturated = {"T1": 0.08, "T2": 0.2, "T2FLAIR": 0.7, "T2star": 0.15}
    for name, settings in sequences.items():
        # MPRAGE readouts excite fat less than its relaxation times suggest; spin echoes show it in full.
        low = 0.4 if settings["sequence"] == "mprage" else 0.8
        settings["fat"] = rng.uniform(0.1, 0.3) if rng.random() < saturated[name] else rng.uniform(low, 1.0)
    return sequences


# Factors on the drawn settings: what clinical protocols hold beyond the common ones, at 1.5 T above all.
PROTOCOL_RANGE = {
    "mprage": {"ti": (0.88, 1.12), "flip_deg": (0.95, 1.3)},
    "T1": {"tr": (0.85, 1.15), "te": (0.9, 1.2)},
    "T2": {"tr": (0.75, 1.2), "te": (0.92, 1.06)},
    "T2FLAIR": {"tr": (0.88, 1.05), "te": (0.93, 1.1)},
    "T2star": {"tr": (0.9, 1.2), "te": (0.85, 1.25), "flip_deg": (0.85, 1.1)},
}


def vary_protocols(
    sequences: dict[str, dict[str, float | str]], rng: np.random.Generator
) -> dict[str, dict[str, float | str]]:
    """``draw_sequences``'s settings, each spread by its ``PROTOCOL_RANGE``; FLAIR's TI follows the null of its TR."""
    varied = {}
    for name, settings in sequences.items():
        ranges = PROTOCOL_RANGE["mprage" if settings["sequence"] == "mprage" else name]
        factors = {key: float(rng.uniform(*span)) for key, span in ranges.items()}
        varied[name] = {key: value * factors[key] if key in factors else value for key, value in settings.items()}
    old, new = sequences["T2FLAIR"], varied["T2FLAIR"]
    new["ti"] = old["ti"] * null_time(FLUID_T1, new["tr"]) / null_time(FLUID_T1, old["tr"])
    return varied


SEQUENCES = {
    "mprage": mprage,
    "spin_echo": spin_echo,
    "inversion_spin_echo": inversion_spin_echo,
    "spoiled_gradient_echo": spoiled_gradient_echo,
}


def evaluate(tissue: TissueValues, settings: dict[str, float | str]) -> Tensor:
    """Signal of tissue values under one entry of ``draw_sequences``."""
    numbers = {key: value for key, value in settings.items() if key not in ("sequence", "fat")}
    return SEQUENCES[settings["sequence"]](tissue, **numbers)
