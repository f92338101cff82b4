"""The tissue table: what each label is made of, for MR at 3 T, CT and amyloid PET.

Sources. T1, T2: Wansapura et al., JMRI 1999 (grey and white matter at 3 T); Stanisz et al., MRM 2005 (brain, muscle,
blood, optic nerve, cord at 3 T); Gelman et al., MRM 2001 (deep nuclei at 3 T); de Bazelaire et al., Radiology 2004
(fat, muscle, marrow at 3 T); Bojorquez et al., MRI 2017 (review: spread between reports). T2*: Peters et al., MRI 2007
(brain at 3 T); pallidum and putamen shortened by iron, Hallgren and Sourander, J. Neurochem. 1958. Proton density:
Tofts, Quantitative MRI of the Brain, 2003. HU: Hounsfield values of radiology textbooks (grey 37, white 29, CSF 0-15,
fat -100, muscle 55, skull 1000-1800). PET: florbetapir SUVr to the cerebellar cortex after Wong et al., J. Nucl. Med.
2010 and Landau et al., J. Nucl. Med. 2013 (negative: white matter above cortex; positive: cortex reaches it); values
outside the brain are read off published pictures (inferred). Where a source gives no value for a tissue, that of its
nearest neighbour in kind stands in. The values are for pictures, not for quantitative MR.

Tumour, necrosis and oedema lie between brain and fluid as far as their look in clinical images asks for (inferred). How
the times change at 1.5 T is said in ``field_strength``.
"""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Tissue:
    """One class. ``labels``: FreeSurfer/SynthSeg codes, left and right together; empty for classes made by rendering.

    ``t1``, ``t2``, ``t2star`` in ms, ``pd`` relative to water, ``hu`` in HU, ``negative`` and ``positive`` in SUVr.
    ``spread`` is the relative standard deviation between heads of t1, t2, t2star, ``hu_spread`` in HU. ``texture`` is
    the relative variation of the relaxation times inside the tissue, ``hu_texture`` in HU. ``flow_*`` multiply the
    signal of moving blood (inflow or flow void). ``intracranial``: kept when a head is skull-stripped.
    """

    name: str
    labels: tuple[int, ...]
    t1: float
    t2: float
    t2star: float
    pd: float
    hu: float
    negative: float
    positive: float
    spread: float = 0.04
    hu_spread: float = 1.5
    texture: float = 0.03
    hu_texture: float = 1.0
    intracranial: bool = False
    flow_gradient: float = 1.0
    flow_spin_echo: float = 1.0


def _brain(
    name: str, labels: tuple[int, ...], *values: float, texture: float = 0.03, hu_texture: float = 1.0
) -> Tissue:
    return Tissue(name, labels, *values, texture=texture, hu_texture=hu_texture, intracranial=True)


AIR = Tissue("air", (0,), 1000, 1, 1, 0.0, -1000, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)

HEAD_TISSUES: tuple[Tissue, ...] = (
    AIR,
    #       name                  labels      T1    T2   T2*   PD    HU  neg.  pos.
    _brain("white_matter",       (2, 41),    850,  75,  48, 0.70,  29, 1.65, 1.75),
    _brain("cortex",             (3, 42),   1380,  96,  60, 0.82,  37, 1.05, 1.70),
    _brain("cerebellar_white",   (7, 46),    880,  76,  47, 0.70,  29, 1.60, 1.65),
    _brain("cerebellar_cortex",  (8, 47),   1330,  95,  57, 0.81,  37, 1.00, 1.00, texture=0.05),
    _brain("thalamus",           (10, 49),  1150,  80,  50, 0.78,  34, 1.35, 1.50),
    _brain("caudate",            (11, 50),  1290,  86,  48, 0.81,  36, 1.15, 1.60),
    _brain("putamen",            (12, 51),  1210,  79,  42, 0.80,  37, 1.20, 1.65),
    _brain("pallidum",           (13, 52),   990,  64,  28, 0.75,  38, 1.35, 1.50),
    _brain("brain_stem",         (16,),      980,  80,  50, 0.74,  31, 1.60, 1.65, texture=0.05),
    _brain("hippocampus",        (17, 53),  1400, 100,  58, 0.83,  35, 1.10, 1.25),
    _brain("amygdala",           (18, 54),  1390,  98,  58, 0.83,  35, 1.10, 1.30),
    _brain("accumbens",          (26, 58),  1320,  90,  48, 0.81,  36, 1.15, 1.65),
    _brain("ventral_dc",         (28, 60),  1050,  77,  40, 0.75,  33, 1.45, 1.50, texture=0.06),
    _brain("deep_grey",          (136, 163, 137, 164), 1250, 88, 50, 0.80, 35, 1.20, 1.50),
    _brain("optic_chiasm",       (85,),     1080,  85,  50, 0.74,  33, 0.80, 0.85),
    _brain("ventricle",          (4, 43, 5, 44, 14, 15, 72), 4300, 1600, 500, 1.00, 7, 0.45, 0.45, texture=0.04),
    _brain("csf",                (24,),     4150,  900, 260, 0.98,  10, 0.55, 0.60, texture=0.08, hu_texture=5.0),
    _brain("perivascular",       (30, 62),  2600,  300, 120, 0.92,  18, 0.90, 0.95),
    _brain("white_lesion",       (25, 57),  1250,  150,  75, 0.82,  24, 1.25, 1.35, texture=0.08),
    _brain("infarct",            (),        2700,  380, 150, 0.94,  13, 0.45, 0.50, texture=0.15, hu_texture=3.0),
    _brain("gliosis",            (),        1550,  170,  80, 0.86,  24, 0.85, 1.00, texture=0.08),
    Tissue("artery", (502,), 1650, 130, 50, 0.85, 42, 0.60, 0.60, 0.08, 3, 0.08, 2, False, 1.35, 0.08),
    Tissue("vein", (514,), 1600, 60, 20, 0.82, 52, 0.65, 0.65, 0.08, 4, 0.12, 4, False, 0.75, 0.22),
    Tissue("eyeball", (506,), 4000, 1100, 300, 1.0, 8, 0.25, 0.25, 0.05, 3, 0.03),
    Tissue("eye_muscle", (508,), 1350, 50, 26, 0.76, 50, 0.60, 0.60, 0.08, 4, 0.06, 4),
    Tissue("optic_nerve", (530,), 1080, 78, 45, 0.74, 34, 0.70, 0.75, 0.06, 3, 0.05, 3),
    Tissue("mucosa", (509,), 1500, 120, 18, 0.78, 38, 0.95, 0.95, 0.12, 8, 0.30, 15),
    Tissue("skin", (511,), 850, 36, 14, 0.62, 15, 0.50, 0.50, 0.12, 15, 0.20, 12),
    Tissue("muscle", (507,), 1400, 40, 25, 0.75, 55, 0.60, 0.60, 0.08, 5, 0.14, 8),
    Tissue("fat", (), 375, 125, 32, 0.94, -98, 0.28, 0.28, 0.08, 6, 0.12, 9),
    Tissue("orbital_fat", (), 375, 120, 30, 0.90, -88, 0.30, 0.30, 0.08, 6, 0.15, 10),
    Tissue("cortical_bone", (515,), 300, 8, 1.5, 0.16, 1350, 0.40, 0.40, 0.15, 170, 0.15, 130),
    Tissue("diploe", (), 420, 55, 9, 0.42, 620, 0.60, 0.60, 0.12, 140, 0.30, 150),
    Tissue("cancellous_bone", (516,), 430, 60, 10, 0.50, 480, 0.65, 0.65, 0.12, 120, 0.30, 130),
    Tissue("spinal_cord", (512,), 960, 78, 42, 0.74, 36, 1.20, 1.20, 0.05, 3, 0.05, 2),
)  # fmt: skip

# Apart from the others because their values are drawn from a stream of their own.
MASS_TISSUES: tuple[Tissue, ...] = (
    #       name                  labels      T1    T2   T2*   PD    HU  neg.  pos.
    _brain("oedema",             (),        1500,  165,  90, 0.86,  20, 1.15, 1.25, texture=0.10, hu_texture=2.0),
    _brain("tumour",             (),        1650,  135,  75, 0.87,  37, 1.05, 1.20, texture=0.16, hu_texture=3.5),
    _brain("necrosis",           (),        2900,  480, 190, 0.95,  16, 0.65, 0.70, texture=0.12, hu_texture=3.0),
)  # fmt: skip

TISSUES: tuple[Tissue, ...] = (*HEAD_TISSUES, *MASS_TISSUES)
NAMES: tuple[str, ...] = tuple(t.name for t in TISSUES)
INDEX: dict[str, int] = {name: i for i, name in enumerate(NAMES)}
CLASS_OF_LABEL: dict[int, int] = {code: i for i, t in enumerate(TISSUES) for code in t.labels}
PROPERTIES: tuple[str, ...] = ("t1", "t2", "t2star", "pd", "hu", "negative", "positive")

assert set(PROPERTIES) <= {f.name for f in fields(Tissue)}
