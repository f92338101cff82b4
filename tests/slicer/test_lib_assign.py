"""Volumes find their modality by name, DICOM text and timing; what is no study image finds none."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import lib_path  # noqa: F401
from Any2allLib.assign import VolumeInfo, assign, match
from Any2allLib.protocol import ServerInfo
from lib_servers import info_document

STACK = ServerInfo.parse(info_document()).stack


def modality(name: str, **dicom: object) -> str | None:
    found = match(VolumeInfo("v", name, dicom), STACK)
    return None if found is None else found[0]


@pytest.mark.parametrize(
    "name, expected",
    [
        ("T1", "T1"),
        ("3: Ax T1 MPRAGE", "T1"),
        ("5: Ax T1 FLAIR", "T1"),
        ("T1 (2)", "T1"),
        ("T1_1", "T1"),
        ("301: sT1W_3D_TFE", "T1"),  # as Philips names it
        ("302: sT1W_3D_TFE_GD", None),
        ("T1c", None),
        ("7: Ax T1 +C", None),
        ("7: Ax T1 MPRAGE POST", None),
        ("T1 Gd", None),
        ("T1+Gd", None),
        ("FLAIR post", None),
        ("T2", "T2"),
        ("4: AX T2 TSE", "T2"),
        ("T2 FLAIR", "T2FLAIR"),
        ("6: Sag T2_FLAIR 3D", "T2FLAIR"),
        ("T2FLAIR", "T2FLAIR"),
        ("t2_tirm_tra_dark-fluid", "T2FLAIR"),
        ("T2*", "T2star"),
        ("8: Ax T2* GRE", "T2star"),
        ("SWI", "T2star"),
        ("SWI Phase", None),
        ("T2 localizer", None),
        ("Head CT", "CT"),
        ("pet_av45.nii.gz", "PET"),
        ("MRHead", None),
        ("CTBrain", "CT"),  # Slicer's sample data
        ("MRBrainT1", "T1"),
        ("MRBrainT2", "T2"),
        ("MRBrainTumor1", None),
        ("object", None),
        ("", None),
    ],
)
def test_names(name, expected):
    assert modality(name) == expected


def measured(sequence: str, te: object, tr: object, ti: object = None) -> dict:
    """Tags of an MR series, times in ms."""
    times = {"EchoTime": te, "RepetitionTime": tr, "InversionTime": ti}
    return {"Modality": "MR", "ScanningSequence": sequence, **times}


@pytest.mark.parametrize(
    "dicom, expected",
    [
        ({"SeriesDescription": "AX T2 FLAIR FS"}, "T2FLAIR"),
        ({"SeriesDescription": "AX T1 SE", "ContrastBolusAgent": "Gadovist"}, None),
        ({"SeriesDescription": "AX T1 SE", "ContrastBolusAgent": "NONE"}, "T1"),
        ({"SeriesDescription": "AX T1 SE", "Modality": "CT"}, "CT"),
        ({"SeriesDescription": "Head", "ProtocolName": "T2 TSE"}, "T2"),
        ({"Modality": "CT"}, "CT"),
        ({"Modality": "PT"}, "PET"),
        ({"Modality": "SEG", "SeriesDescription": "T1"}, None),
        ({"Modality": "CT", "SeriesDescription": "Topogram"}, None),
        (measured("GR\\IR", 2.9, 2300, 900), "T1"),
        (measured("SE\\IR", 120, 9000, 2500), "T2FLAIR"),
        (measured("SE", "98", "4500"), "T2"),
        (measured("SE", "9", "550"), "T1"),
        (measured("GR", 20, 28), "T2star"),
        (measured("EP\\SE", 90, 6000), None),
        (measured("SE", 35, 2500), None),  # proton density
        (measured("SE", "?", None), None),
        ({**measured("SE", 9, 550), "ContrastBolusAgent": "Dotarem"}, None),
        ({**measured("SE\\IR", 120, 5000, 1800), "SeriesDescription": "t2_space_dark-fluid"}, "T2FLAIR"),
    ],
)
def test_dicom(dicom, expected):
    assert modality("Unnamed series", **dicom) == expected


def test_the_name_that_the_user_gave_comes_first():
    assert modality("T1", SeriesDescription="T2 FLAIR") == "T1"
    assert modality("my scan", SeriesDescription="T2 FLAIR") == "T2FLAIR"


def test_the_better_match_wins_and_ties_go_by_order():
    volumes = [
        VolumeInfo("a", "scan", {"SeriesDescription": "T1"}),
        VolumeInfo("b", "2: T1"),
        VolumeInfo("c", "3: Ax T1 MPRAGE"),
        VolumeInfo("d", "9: Ax T1 MPRAGE"),
        VolumeInfo("e", "T1c"),
        VolumeInfo("f", "head CT", {"Modality": "CT", "ContrastBolusAgent": "Ultravist"}),
        VolumeInfo("g", "unnamed", {"Modality": "CT"}),
    ]
    assert assign(volumes, STACK) == {"T1": "c", "CT": "g"}
    assert assign(volumes[::-1], STACK)["T1"] == "d"
    assert assign(volumes[:1], STACK) == {"T1": "a"}
    assert assign([], STACK) == {}


def test_results_of_any2all_are_never_inputs():
    assert assign([VolumeInfo("a", "CT", made_here=True), VolumeInfo("b", "T2")], STACK) == {"T2": "b"}


RESULT_NAMES = [
    f"{modality.name} · {what} · Any2all{ending}"
    for modality in STACK
    for what in ("synthesised", "reconstructed", "uncertainty (std)", "sample 1")
    for ending in ("", " (2)", " cropped", "_1")
]
WRITTEN = {
    "as in the scene": str,
    "as it is": lambda name: f"{name}.nii.gz",
    "dropped, as Slicer's saving does": lambda name: re.sub(r"[^\w .()-]|·", "", name) + ".nrrd",
    "underscores": lambda name: re.sub(r"\W+", "_", name) + ".mha",
    "percent, as in a saved scene": lambda name: quote(name) + ".nrrd",
}


@pytest.mark.parametrize("write", WRITTEN)
def test_results_that_were_saved_and_loaded_are_never_inputs(write):
    names = [WRITTEN[write](name) for name in RESULT_NAMES]
    assert {name: modality(name) for name in names} == dict.fromkeys(names)


@pytest.mark.parametrize("ending", ["", ".nii.gz", "_1", " cropped", " cropped_1"])
def test_the_servers_files_of_an_uncertainty_are_never_inputs(ending):
    names = [f"{before}{m.name}_std{ending}" for m in STACK for before in ("", "p01_")]
    assert {name: modality(name) for name in names} == dict.fromkeys(names)


@pytest.mark.parametrize(
    "name, dicom",
    [
        ("4", {"Modality": "CT", "SeriesDescription": "SYNTHETIC Any2all CT std"}),
        ("4", {"Modality": "MR", "SeriesDescription": "RECONSTRUCTED Any2all T2FLAIR"}),
        ("CT", {"Modality": "CT", "ProtocolName": "any2all"}),
        ("synthetic CT", {}),
        ("PET", {"Modality": "PT", "SeriesDescription": "synthetic PET"}),
        ("T1_synthesized", {}),
        ("PET uncertainty", {}),
    ],
)
def test_what_says_that_it_was_made_is_never_an_input(name, dicom):
    assert modality(name, **dicom) is None


@pytest.mark.parametrize(
    "name, dicom, expected",
    [
        ("4: CT STD", {"Modality": "CT", "SeriesDescription": "CT STD"}, "CT"),  # GE's kernel
        ("CT HEAD STD", {}, "CT"),
        ("CT std", {}, "CT"),
        ("Head", {"Modality": "CT", "SeriesDescription": "CT_std"}, "CT"),
        ("PET reconstructed", {}, "PET"),
        ("3: PET", {"Modality": "PT", "SeriesDescription": "reconstructed OSEM"}, "PET"),
        ("T1_std_head", {}, "T1"),
        ("MAGiC synthetic T2", {}, "T2"),
        ("T2w SyntheticMR", {"Modality": "MR"}, "T2"),
    ],
)
def test_a_scanners_own_words_are_no_results(name, dicom, expected):
    assert modality(name, **dicom) == expected


@pytest.mark.parametrize(
    "name",
    [
        "p01_T2_FLAIR.nii.gz",
        "sub-01_T1w_brain.nii.gz",
        "T1-FLAIR.nii",
        "p_T1_c.nii.gz",
        "T2_starw.nii.gz",
        "sub-01_ce-gadolinium_T1w.nii.gz",
        "t2_space_flair.nii.gz",
        "t2starmap.nii.gz",
        "T2_to_T1.nii.gz",
        "FLAIR_registered_to_T1.nii.gz",
        "sub-01_space-T1w_T2w.nii.gz",
        "t2_space-flair_sag.nii.gz",
        "moved_to_mni_T2.nii.gz",
        "MR_to_CT.nii.gz",
        "T1_pre_contrast.nii.gz",
        "T1_W_O_CONTRAST.nii.gz",
        "no_contrast_T1.nii.gz",
        "pre_gadolinium_T1.nii.gz",
        "T1_w_and_wo_contrast.nii.gz",
        "T1_pre_and_post.nii.gz",
    ],
)
def test_rules_are_the_servers_own(name):
    stack = pytest.importorskip("any2all.stack").load_stack()
    assert modality(name) == stack.match(name)
