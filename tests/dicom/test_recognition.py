"""Realistic protocols of three vendors: what each is, why, and how sure that is."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
from any2all.dicom import find_series, recognise, studies_from
from any2all.dicom.recognition import check_overrides, choose, parse_overrides
from any2all.dicom.series import Series, frames_of, skip_reason
from any2all.errors import Any2allError
from any2all.stack import load_stack
from dicom_builders import AXIAL, CT, FLAIR, MPRAGE, OBLIQUE, PET, basic, classic, enhanced_mr, pattern, save, write_all

STACK = load_stack()


def mr(description="", sequence=("SE",), tr=None, te=None, ti=None, **more):
    tags = {
        "SeriesDescription": description,
        "ScanningSequence": list(sequence),
        "ImageType": ["ORIGINAL", "PRIMARY", "M"],
    }
    tags |= {"RepetitionTime": tr, "EchoTime": te, "InversionTime": ti}
    return "MR", {key: value for key, value in {**tags, **more}.items() if value is not None}


GRE = {"sequence": ("GR",)}
SIEMENS_T1 = {"sequence": ("GR", "IR"), "tr": 2300, "te": 2.98, "ti": 900, "FlipAngle": 9, "MRAcquisitionType": "3D"}
TABLE = {  # modality, or None and a word of the reason
    "Siemens MPRAGE": (mr("t1_mprage_sag_p2_iso", **SIEMENS_T1), "T1"),
    "Siemens MPRAGE, nameless": (mr("", **SIEMENS_T1), "T1"),
    "GE BRAVO": (mr("Ax 3D BRAVO", **GRE, tr=8.2, te=3.2, ti=450, FlipAngle=12, MRAcquisitionType="3D"), "T1"),
    "Philips 3D TFE": (mr("3D T1 TFE SENSE", **GRE, tr=8.1, te=3.7, FlipAngle=8, MRAcquisitionType="3D"), "T1"),
    "T1 SE 1.5 T": (mr("t1_se_tra", tr=550, te=12, MagneticFieldStrength=1.5), "T1"),
    "GE T1 FLAIR": (mr("Sag T1 FLAIR", ("RM", "IR"), 2500, 24, 900, EchoTrainLength=8), "T1"),
    "T1 FLASH 2-D": (mr("t1_fl2d_tra", **GRE, tr=250, te=2.5, FlipAngle=70), "T1"),
    "T2 TSE": (mr("t2_tse_tra", tr=6000, te=100, EchoTrainLength=18), "T2"),
    "GE FRFSE": (mr("Ax T2 FRFSE", ("RM",), 4500, 102, EchoTrainLength=24), "T2"),
    "GE PROPELLER": (mr("Ax T2 PROP", ("RM",), 5200, 98, EchoTrainLength=28), "T2"),
    "T2 SPACE": (mr("t2_space_sag", tr=3200, te=408, MRAcquisitionType="3D"), "T2"),
    "FLAIR 2-D Siemens": (mr("t2_tirm_tra_dark-fluid_3mm", ("SE", "IR"), 9000, 92, 2500), "T2FLAIR"),
    "FLAIR SPACE dark-fluid": (mr("t2_space_dark-fluid_sag_p2_iso", ("SE", "IR"), 5000, 388, 1800), "T2FLAIR"),
    "FLAIR 3-D GE CUBE": (mr("Sag CUBE T2 FLAIR", ("SE", "IR"), 6500, 119, 1860, EchoTrainLength=140), "T2FLAIR"),
    "FLAIR Philips 2-D": (mr("FLAIR_longTR SENSE", ("IR",), 11000, 125, 2800, EchoTrainLength=27), "T2FLAIR"),
    "FLAIR Philips without TI": (mr("3D FLAIR", ("IR",), 4800, 340, EchoTrainLength=170), "T2FLAIR"),
    "FLAIR called T2": (mr("T2 axial", ("SE", "IR"), 9000, 120, 2500), "T2FLAIR"),
    "SWI": (mr("SWI_Images", **GRE, tr=28, te=20, FlipAngle=15, MRAcquisitionType="3D"), "T2star"),
    "GRE T2*": (mr("t2_fl2d_tra_hemo", **GRE, tr=620, te=20, FlipAngle=20), "T2star"),
    "GE T2* GRE": (mr("Ax T2* GRE", **GRE, tr=600, te=15, FlipAngle=20), "T2star"),
    "no parameters, named": (
        ("MR", {"SeriesDescription": "brain T2 FLAIR", "ImageType": ["ORIGINAL", "PRIMARY"]}),
        "T2FLAIR",
    ),
    "T1 after contrast": (mr("t1_mprage", **SIEMENS_T1, ContrastBolusAgent="Gadovist"), "contrast agent (Gadovist)"),
    "T1 after contrast by name": (mr("Ax T1 +C", tr=550, te=12), "contrast agent (by its description)"),
    "agent NONE is none": (mr("t1_mprage", **SIEMENS_T1, ContrastBolusAgent="NONE"), "T1"),
    "FLAIR after contrast": (mr("FLAIR KM", ("SE", "IR"), 9000, 92, 2500), "contrast agent"),
    "DWI": (mr("ep2d_diff_3scan_trace", ("EP",), 4200, 89, SequenceName="*ep_b1000t"), "diffusion"),
    "GE DWI": (mr("Ax DWI B1000", ("EP", "SE"), 8000, 80, DiffusionBValue=1000.0), "diffusion"),
    "BOLD": (mr("rest", ("EP", "GR"), 2000, 30, FlipAngle=77), "echo-planar"),
    "TOF": (mr("TOF_3D_multi-slab", **GRE, tr=21, te=3.4, FlipAngle=18, SequenceName="*fl3d1r_t70"), "angiography"),
    "TOF GE": (mr("3D TOF MRA", **GRE, tr=23, te=2.9, FlipAngle=20, MRAcquisitionType="3D"), "angiography"),
    "PD": (mr("pd_tse", tr=3000, te=15, EchoTrainLength=7), "proton density"),
    "STIR": (mr("t2_tirm_cor_fs", ("SE", "IR"), 5000, 60, 150), "STIR"),
    "SWI phase": (mr("Pha_Images", **GRE, tr=28, te=20, ImageType=["ORIGINAL", "PRIMARY", "P", "ND"]), "derived image"),
    "GRE phase, nameless": (mr("", **GRE, tr=28, te=20, ImageType=["ORIGINAL", "PRIMARY", "P"]), "a phase"),
    "MIP of SWI": (mr("mIP_Images(SW)", **GRE, tr=28, te=20, ImageType=["DERIVED", "PRIMARY", "MNIP"]), "a projection"),
    "field map": (mr("gre_field_mapping", **GRE, tr=488, te=4.92, FlipAngle=60), "calibration"),
    "MPRAGE by its short name": (mr("t1_mpr_ns_sag_p2_iso", **SIEMENS_T1), "T1"),
    "MPRAGE as HCP calls it": (mr("T1w_MPR", **SIEMENS_T1), "T1"),
    "reformat of it": (mr("t1_mpr_sag_p2_iso_MPR_tra", **SIEMENS_T1), "derived image"),
    "derived, called T1 MPR": (mr("T1 MPR cor", **SIEMENS_T1, ImageType=["DERIVED", "SECONDARY"]), "derived image"),
    "MP2RAGE uniform": (mr("t1_mp2rage_sag_p3_iso_UNI_Images", **SIEMENS_T1), "T1"),
    "MP2RAGE first inversion": (mr("t1_mp2rage_sag_p3_iso_INV1", **SIEMENS_T1), "inversion image"),
    "MP2RAGE T1 map": (mr("t1_mp2rage_sag_p3_iso_T1_Images", **SIEMENS_T1), "map"),
    "T2 map": (mr("T2_Map_Images", tr=2000, te=80), "map"),
    "CISS": (mr("t2_ci3d_tra", **GRE, tr=5.6, te=2.4, FlipAngle=60, MRAcquisitionType="3D"), "steady-state"),
    "T2 of the spine": (mr("t2_tse_sag", tr=3500, te=100, BodyPartExamined="CSPINE"), "another body part (CSPINE)"),
    "T2 of the spine by name": (mr("T2 SAG C-SPINE", tr=3500, te=100), "the spine (C-SPINE)"),
    "T1 before contrast": (mr("Ax T1 PRE CONTRAST", tr=550, te=12), "T1"),
    "T1 pre gad": (mr("Ax T1 pre-gad", tr=550, te=12), "T1"),
    "T1 with and without": (mr("T1 W WO CONTRAST", tr=550, te=12), "contrast agent (by its description)"),
    "T1 before and after": (mr("T1 pre and post contrast", tr=550, te=12), "contrast agent (by its description)"),
    "agent NO CONTRAST is none": (mr("t1_mprage", **SIEMENS_T1, ContrastBolusAgent="NO CONTRAST"), "T1"),
    "CT W/O CONTRAST": (("CT", {**CT, "SeriesDescription": "HEAD W/O IV CONTRAST"}), "CT"),
    "CT without contrast": (("CT", {**CT, "SeriesDescription": "Head without contrast 5mm"}), "CT"),
    "CT non-contrast": (("CT", {**CT, "SeriesDescription": "NON-CONTRAST HEAD"}), "CT"),
    "CT with contrast": (("CT", {**CT, "SeriesDescription": "HEAD W CONTRAST"}), "contrast agent (by its description)"),
    "CT W/WO CONTRAST": (("CT", {**CT, "SeriesDescription": "HEAD W/WO CONTRAST"}), "contrast agent"),
    "localizer": (mr("localizer", **GRE, tr=8.6, te=4, FlipAngle=20), "localizer"),
    "survey": (mr("Survey_SHC", **GRE, tr=11, te=4.6, FlipAngle=15), "localizer"),
    "unknown": (mr("research 7", ("RM",), 1400, 50), "names no modality"),
    "CT head": (("CT", CT), "CT"),
    "CT head GE": (("CT", {**CT, "SeriesDescription": "2.5mm Standard", "BodyPartExamined": "HEAD"}), "CT"),
    "CTA": (("CT", {**CT, "SeriesDescription": "CTA head 0.75", "ContrastBolusAgent": "Ultravist"}), "angiography"),
    "CT with agent": (("CT", {**CT, "ContrastBolusAgent": "Omnipaque"}), "contrast agent (Omnipaque)"),
    "CT perfusion": (("CT", {**CT, "SeriesDescription": "CTP Tmax"}), "perfusion"),
    "CT chest": (("CT", {**CT, "BodyPartExamined": "CHEST"}), "another body part"),
    "topogram": (("CT", {**CT, "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}), "localizer"),
    "PET": (("PT", PET), "PET"),
    "PET NAC": (("PT", {**PET, "SeriesDescription": "PET WB NAC", "CorrectedImage": ["DECY"]}), "attenuation"),
}


def series_of(modality, tags):
    one = basic(modality, tags)
    one.SOPInstanceUID = "1.2.3"
    one.Rows = one.Columns = 16
    frames = frames_of(None, one)
    return Series("1.2.3", "1.2", ("p",), tuple(frames), skip=skip_reason(frames[0]))


@pytest.mark.parametrize("name", TABLE)
def test_protocols(name):
    (modality, tags), expected = TABLE[name]
    found = recognise(series_of(modality, tags), STACK)
    if expected in STACK.names:
        assert found.modality == expected and 0.5 <= found.confidence <= 1, found
    else:
        assert found.modality is None and expected in found.reason, found
    assert found.reason and 0 <= found.confidence <= 1


def test_parameters_come_before_descriptions_and_agreement_is_surer():
    def sure(name):
        return recognise(series_of(*TABLE[name][0]), STACK).confidence

    assert sure("Siemens MPRAGE") > sure("Siemens MPRAGE, nameless") > sure("FLAIR called T2") > 0.5
    assert sure("no parameters, named") == 0.5
    assert "although described as T2" in recognise(series_of(*TABLE["FLAIR called T2"][0]), STACK).reason
    assert "TR 9000 ms, TE 120 ms, TI 2500 ms" in recognise(series_of(*TABLE["FLAIR called T2"][0]), STACK).reason


def test_enhanced_mr_is_recognised_from_functional_groups(tmp_path):
    save(enhanced_mr(pattern(), OBLIQUE, lambda k: (1.0, 0.0), {"SeriesDescription": "series 7"}), tmp_path / "one")
    found = recognise(find_series(tmp_path)[0], STACK)
    assert found.modality == "T2FLAIR" and "TI 1650 ms" in found.reason


def test_overrides_win_by_uid_and_number_but_never_for_our_own_series():
    ours = series_of("MR", {**MPRAGE, "Manufacturer": "Any2all"})
    given = series_of("MR", MPRAGE)
    by_number, by_uid = parse_overrides({"1": "T2"}, STACK), parse_overrides({"1.2.3": None}, STACK)
    assert recognise(given, STACK, by_number).modality == "T2"
    assert recognise(given, STACK, by_uid).modality is None
    assert recognise(given, STACK, parse_overrides({1: "null"}, STACK)).modality is None
    assert recognise(ours, STACK, by_number).modality is None
    for wrong in (
        {"1": "T7"},
        {"1": {"modality": "T1", "reference_suv": 2.0}},
        {"1": {"modality": "PET", "reference_suv": -1}},
    ):
        with pytest.raises(Any2allError, match="no such override"):
            parse_overrides(wrong, STACK)


def test_an_override_of_no_series_is_refused():
    one = series_of("MR", MPRAGE)
    check_overrides({1: "T2", "1.2.3": None}, [one])
    for key in ("99", "None", "1.2"):
        with pytest.raises(Any2allError, match=rf"overrides.{key}: no series here .*allowed: the numbers 1 and"):
            check_overrides({"1": "T2", key: "T2"}, [one])


def test_the_better_of_two_series_is_taken_and_the_other_is_named(tmp_path):
    thick = {**FLAIR, "SeriesDescription": "t2_flair_tra", "SeriesNumber": 4}
    thin = {**thick, "SeriesDescription": "t2_flair_3d", "SeriesNumber": 5, "MRAcquisitionType": "3D"}
    write_all(classic("MR", pattern(), OBLIQUE, thick), tmp_path / "in" / "a")
    write_all(classic("MR", pattern((24, 20, 16)), OBLIQUE, thin), tmp_path / "in" / "b")
    (made,) = studies_from(tmp_path / "in", STACK, tmp_path / "out")
    rows = {row["number"]: row for row in json.loads((made.folder / "series.json").read_text())["series"]}
    assert rows[5]["verdict"] == "taken" and rows[4]["verdict"] == "not taken"
    assert "series 5 is the better T2FLAIR" in rows[4]["reason"]
    assert any("series 4" in line for line in made.ignored)


def test_images_of_one_examination_stay_together(tmp_path):
    """Two visits with the same protocol, whose series were numbered in another order; only the second has a CT."""
    for visit, numbers in (("1", (5, 4)), ("2", (3, 6))):
        for (name, tags), number in zip((("t1", MPRAGE), ("flair", FLAIR)), numbers):
            told = {**tags, "SeriesNumber": number, "StudyInstanceUID": f"1.2.{visit}"}
            slices = classic("MR", pattern(seed=number), OBLIQUE, told, uid=f"1.2.{visit}.{number}")
            write_all(slices, tmp_path / "in" / visit / name)
    ct = {**CT, "SeriesNumber": 2, "StudyInstanceUID": "1.2.2"}
    write_all(classic("CT", pattern(), OBLIQUE, ct, lambda k: (1, -1024)), tmp_path / "in" / "2" / "ct")
    (made,) = studies_from(tmp_path / "in", STACK, tmp_path / "out")
    source = json.loads((made.folder / "dicom_source.json").read_text())["modalities"]
    assert {name: entry["study_uid"] for name, entry in source.items()} == dict.fromkeys(
        ("T1", "T2FLAIR", "CT"), "1.2.2"
    )
    assert not [words for words in made.warnings if "examinations" in words]
    (made,) = studies_from(tmp_path / "in", STACK, tmp_path / "out", {"1.2.1.4": "T2FLAIR"})  # but for the user's word
    assert [words for words in made.warnings if "examinations" in words]


def test_a_soft_kernel_and_more_slices_are_better(tmp_path):
    kinds = {2: "H60s", 3: "H31s", 4: "H31s"}
    for number, kernel in kinds.items():
        shape = (24, 20, 12 if number == 4 else 8)
        tags = {**CT, "SeriesNumber": number, "SeriesDescription": f"head {number}", "ConvolutionKernel": kernel}
        write_all(classic("CT", pattern(shape), AXIAL, tags, lambda k: (1.0, -1024.0)), tmp_path / str(number))
    pairs = [(one, recognise(one, STACK)) for one in find_series(tmp_path)]
    (choice,) = choose(pairs, STACK)
    assert [series.number for series, _ in choice.candidates] == [4, 3, 2]


def test_a_pet_over_its_reference_region_is_suvr(tmp_path):
    write_all(classic("PT", pattern(), AXIAL, PET, lambda k: (2.0, 0.0)), tmp_path / "in")
    (plain,) = studies_from(tmp_path / "in", STACK, tmp_path / "suv")
    assert any("in SUV (body weight), but the stack's PET is in SUVr" in warning for warning in plain.warnings)
    said = {"1": {"modality": "PET", "reference_suv": 1.25}}
    (ratio,) = studies_from(tmp_path / "in", STACK, tmp_path / "suvr", said)
    first, second = (np.asarray(nib.load(one.files["PET"]).dataobj) for one in (plain, ratio))
    assert np.allclose(first / 1.25, second) and not ratio.warnings
