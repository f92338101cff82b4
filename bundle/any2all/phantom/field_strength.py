"""Relaxation times at another field than the 3 T of the tissue table.

Sources. T1 of brain grows as a power of the field near 0.35 and that of fluid does not: Rooney et al., MRM 2007.
Fat: de Bazelaire et al., Radiology 2004 (T1 at 1.5 and 3 T). T2 falls a little with the field: Stanisz et al., MRM
2005. T2*: Peters et al., MRI 2007 (1.5, 3 and 7 T); here R2' = 1/T2* - 1/T2 is in proportion to the field. The
exponents are rounded, and what no source measured (bone, skin, necrosis) takes that of its nearest neighbour in kind
(inferred).
"""

from __future__ import annotations

from .tissues import PROPERTIES

TABLE_TESLA = 3.0
T1_EXPONENT, T2_EXPONENT = 0.35, -0.08
FATTY_T1_EXPONENT = 0.15
FLUIDS = ("air", "ventricle", "csf", "perivascular", "eyeball", "infarct", "necrosis")
FATTY = ("fat", "orbital_fat", "diploe", "cancellous_bone")


def times_at_field(name: str, t1: float, t2: float, t2star: float, tesla: float) -> tuple[float, float, float]:
    """T1, T2, T2* (ms) of a tissue at ``tesla`` from those at 3 T."""
    ratio = tesla / TABLE_TESLA
    dephasing = max(0.0, 1 / t2star - 1 / t2) * ratio
    if name not in FLUIDS:
        t1 *= ratio ** (FATTY_T1_EXPONENT if name in FATTY else T1_EXPONENT)
        t2 *= ratio**T2_EXPONENT
    return t1, t2, 1 / (1 / t2 + dephasing)


def values_at_field(values: dict[str, tuple[float, ...]], tesla: float) -> dict[str, tuple[float, ...]]:
    """A head's ``tissue_values`` at ``tesla`` from those at 3 T; density, HU and SUVr stay."""
    assert PROPERTIES[:3] == ("t1", "t2", "t2star")
    return {name: (*times_at_field(name, *row[:3], tesla), *row[3:]) for name, row in values.items()}
