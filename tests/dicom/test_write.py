"""Results become derived series that lie where the source lay, to 1e-4 mm, and say what they are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from any2all.dicom import find_series, recognise, studies_from, write, write_dicom
from any2all.dicom.values import as_slices, decimal, to_stored
from any2all.errors import Any2allError
from any2all.geometry import Grid, Volume, read_volume
from any2all.output import ModalityResult, Result
from any2all.output.write import write_results
from any2all.stack import load_stack
from dicom_builders import (
    CT,
    FRAME_UID,
    MPRAGE,
    NAME,
    NUMBER,
    OBLIQUE,
    PERSON,
    PET,
    STUDY_UID,
    classic,
    enhanced_mr,
    pattern,
    ras,
    save,
    write_all,
)
from highdicom._iods import IOD_MODULE_MAP
from highdicom._module_utils import check_required_attributes
from iod_tables import complaints

STACK = load_stack()
SHA = "ab" * 32
PROVENANCE = {
    "software": "any2all 9.9",
    "prior": {"sha256": SHA, "version": "1.2.3", "noise_levels": "per_modality"},
    "sampler": {"name": "mcs", "steps": 10, "samples": 4, "seed": 0},
}


def results_on(reference: Volume, given: str, folder: Path, outputs=("T2FLAIR", "CT", "PET")) -> Path:
    """Results of every kind on a reference's grid, with values that no 16-bit step meets exactly."""
    rng = np.random.default_rng(5)
    made = []
    ranges = {"T1": (0, 900), "T2FLAIR": (-12.3, 871.7), "CT": (-1000.0, 1900.5), "PET": (0.0, 2.9)}
    for name in outputs:
        low, high = ranges[name]
        mean = Volume(rng.uniform(low, high, reference.grid.shape), reference.grid)
        std = Volume(rng.uniform(0, 0.1 * high, reference.grid.shape), reference.grid)
        role = "reconstructed" if name == "T2FLAIR" else "synthetic"
        units = {"CT": "HU", "PET": "SUVr"}.get(name, "a.u.")
        made.append(ModalityResult(name, role, mean, units, std=None if name == "PET" else std))
    result = Result("p01", reference, {given: reference}, made, provenance=PROVENANCE)
    return write_results(result, folder, STACK)


def sources(kind: str, folder: Path) -> None:
    if kind == "MR":
        write_all(classic("MR", pattern(), OBLIQUE, MPRAGE), folder)
    elif kind == "enhanced":
        save(enhanced_mr(pattern(), OBLIQUE, lambda k: (0.5 + k, 1.0)), folder / "one")
    elif kind == "CT":
        write_all(classic("CT", pattern(), OBLIQUE, CT, lambda k: (1.0, -1024.0)), folder)
    else:
        write_all(classic("PT", pattern(), OBLIQUE, PET, lambda k: (2.0 + k, 0.0)), folder)


@pytest.fixture(scope="module", params=["MR", "enhanced", "CT", "PET"])
def trip(request, tmp_path_factory):
    """DICOM → study → results → DICOM: (folder with in, study, results, out; the source's modality)."""
    folder = tmp_path_factory.mktemp("trip")
    sources(request.param, folder / "in")
    (made,) = studies_from(folder / "in", STACK, folder / "studies", subject="p01")
    given = {"MR": "T1", "enhanced": "T2FLAIR", "CT": "CT", "PET": "PET"}[request.param]
    assert list(made.files) == [given]
    outputs = [name for name in ("T1", "T2FLAIR", "CT", "PET") if name != given]
    results = results_on(read_volume(made.files[given], "image"), given, folder / "results", outputs)
    source = made.folder / "dicom_source.json"
    write_dicom(results, folder / "out", source, folder / "in")
    return folder, made, outputs


def images(folder: Path) -> list[pydicom.Dataset]:
    found = [pydicom.dcmread(file) for file in sorted(folder.glob("*.dcm"))]
    assert found
    return found


def values(found: list[pydicom.Dataset]) -> np.ndarray:
    """(column, row, slice) in units."""
    planes = [one.pixel_array * float(one.RescaleSlope) + float(one.RescaleIntercept) for one in found]
    return np.stack([plane.T for plane in planes], axis=2)


def test_there_is_one_series_for_each_mean_and_std(trip):
    folder, _, outputs = trip
    wanted = {name for o in outputs for name in (o, f"{o}_std") if name != "PET_std"}
    assert {path.name for path in (folder / "out").iterdir() if path.is_dir()} == wanted
    uids = {name: {one.SeriesInstanceUID for one in images(folder / "out" / name)} for name in wanted}
    assert all(len(found) == 1 for found in uids.values())
    assert len({uid for found in uids.values() for uid in found}) == len(wanted)
    assert all(uid.startswith("2.25.") for found in uids.values() for uid in found)


def test_values_come_back_to_half_a_step(trip):
    folder, _, outputs = trip
    for name in outputs:
        found = images(folder / "out" / name)
        expected = np.asarray(nib.load(folder / "results" / f"{name}.nii.gz").dataobj)
        assert np.abs(values(found) - expected).max() <= 0.5 * float(found[0].RescaleSlope) * (1 + 1e-6)
    if "CT" in outputs:
        assert float(images(folder / "out" / "CT")[0].RescaleSlope) == 1


def test_slices_lie_on_the_sources_own_to_1e_4_mm(trip):
    folder, made, outputs = trip
    found = images(folder / "out" / outputs[0])
    places = np.array([[float(x) for x in one.ImagePositionPatient] for one in found])
    expected = np.array([(OBLIQUE @ [0, 0, k, 1])[:3] for k in range(8)])
    assert np.abs(places - expected).max() < 1e-4
    cosines = (OBLIQUE[:3, :2] / [1.25, 1.5]).T.ravel()
    assert np.abs(np.array(found[0].ImageOrientationPatient, float) - cosines).max() < 1e-6
    assert np.allclose(np.array(found[0].PixelSpacing, float), [1.5, 1.25], atol=1e-6)
    assert {one.FrameOfReferenceUID for one in found} == {FRAME_UID}
    assert {one.StudyInstanceUID for one in found} == {STUDY_UID}


def test_another_reader_finds_the_same_geometry(trip):
    folder, _, outputs = trip
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder / "out" / outputs[0])))
    image = reader.Execute()
    for index in ((0, 0, 0), (23, 0, 0), (0, 19, 0), (23, 19, 7)):
        place = image.TransformIndexToPhysicalPoint(index)
        assert np.abs(np.array(place) - (OBLIQUE @ [*index, 1])[:3]).max() < 1e-4


def test_every_type_1_and_2_attribute_is_there(trip):
    folder, _, outputs = trip
    for series in sorted((folder / "out").iterdir()):
        if series.is_dir():
            for one in images(series)[:2]:
                assert complaints(one) == [], series.name


IODS = {"MR": "mr-image", "CT": "ct-image", "PT": "pet-image"}


def test_highdicoms_tables_of_the_standard_find_nothing_missing(trip):
    folder, _, outputs = trip
    for name in outputs:
        one = images(folder / "out" / name)[0]
        modules = IOD_MODULE_MAP[IODS[one.Modality]]
        wanted = [module["key"] for module in modules if module["usage"] == "M"] + ["common-instance-reference"]
        for module in wanted:
            check_required_attributes(one, module)
    del one.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    with pytest.raises(AttributeError, match="ReferencedInstanceSequence"):
        check_required_attributes(one, "common-instance-reference")


def test_the_check_would_see_a_missing_attribute(trip):
    folder, _, outputs = trip
    one = images(folder / "out" / outputs[0])[0]
    del one.PositionReferenceIndicator
    one.SourceImageSequence[0].ReferencedSOPClassUID = ""
    one.ImageOrientationPatient = None
    assert len(complaints(one)) == 3


def test_a_series_says_what_it_is_and_where_it_comes_from(trip):
    folder, made, outputs = trip
    name = outputs[0]
    found = images(folder / "out" / name)
    word = "RECONSTRUCTED" if name == "T2FLAIR" else "SYNTHETIC"
    one = found[3]
    assert one.SeriesDescription == f"{word} Any2all {name}"
    assert list(one.ImageType[:2]) == ["DERIVED", "SECONDARY"] and one.ImageType[3] == word
    assert one.BurnedInAnnotation == "NO" and one[0x0008001C].value == "YES"
    equipment = one.ContributingEquipmentSequence[0]
    assert equipment.Manufacturer == "Any2all" and SHA in equipment.ContributionDescription
    assert "not for diagnosis" in one.DerivationDescription and "mcs" in one.DerivationDescription
    source = json.loads((made.folder / "dicom_source.json").read_text())["modalities"]
    (origin,) = source.values()
    reference = one.SourceImageSequence[0]
    assert reference.ReferencedSOPInstanceUID == origin["slices"][3]["uid"]
    assert reference.SpatialLocationsPreserved == "YES"
    assert one.ReferencedSeriesSequence[0].SeriesInstanceUID == origin["series_uid"]
    if origin["slices"][0]["uid"] == origin["slices"][1]["uid"]:
        assert reference.ReferencedFrameNumber == origin["slices"][3]["frame"]
    for std in (folder / "out").glob("*_std"):
        assert images(std)[0].SeriesDescription.endswith(" std") and images(std)[0].ImageType[4] == "STD"


def test_the_sources_patient_is_taken_from_its_own_files_only(trip, tmp_path):
    folder, made, outputs = trip
    one = images(folder / "out" / outputs[0])[0]
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "AccessionNumber", "StudyDate"):
        assert str(one.get(keyword)) == PERSON[keyword]
    write_dicom(folder / "results", tmp_path / "alone", made.folder / "dicom_source.json")
    for file in (tmp_path / "alone").rglob("*.dcm"):
        content = file.read_bytes()
        assert not any(word.encode() in content for word in (*NAME.split("^"), NUMBER, "ACC99887", "Zimtstern"))
    one = images(tmp_path / "alone" / outputs[0])[0]
    assert one.PatientID == "p01" and one.PatientIdentityRemoved == "YES" and one.StudyInstanceUID == STUDY_UID


def test_our_own_series_is_never_an_input(trip):
    folder, _, _ = trip
    for series in find_series(folder / "out"):
        assert "an estimate is never an input" in recognise(series, STACK).reason


def test_modality_and_class_fit(trip):
    folder, _, outputs = trip
    for name in outputs:
        one = images(folder / "out" / name)[0]
        kind = {"CT": "CT", "PET": "PT"}.get(name, "MR")
        assert one.Modality == kind and one.SOPClassUID == one.file_meta.MediaStorageSOPClassUID
        if name == "CT":
            assert one.RescaleType == "HU"
        if name == "PET":  # nothing from which a viewer could make another SUV
            assert one.Units == "NONE" and not one.RadiopharmaceuticalInformationSequence


def test_a_study_that_never_was_dicom_gets_a_pseudonymous_study(phantom_files, tmp_path):
    reference = read_volume(phantom_files / "T1.nii.gz", "image")
    results = results_on(reference, "T1", tmp_path / "results", ("CT",))
    write_dicom(results, tmp_path / "out")
    (series,) = [one for one in find_series(tmp_path / "out") if "std" not in one.description]
    one = images(tmp_path / "out" / "CT")
    assert one[0].PatientID == "p01" and "SourceImageSequence" not in one[0] and complaints(one[0]) == []
    assert list(map(float, one[0].ImageOrientationPatient)) == [1, 0, 0, 0, 1, 0]  # as radiologists look at it
    # every voxel is where the results have it
    expected = nib.load(results / "CT.nii.gz")
    affine = np.linalg.inv(expected.affine) @ ras(
        np.array(
            [
                [4.0, 0, 0, float(one[0].ImagePositionPatient[0])],
                [0, 4.0, 0, float(one[0].ImagePositionPatient[1])],
                [0, 0, 6.0, float(one[0].ImagePositionPatient[2])],
                [0, 0, 0, 1],
            ]
        )
    )
    index = np.rint(affine @ [3, 5, 7, 1]).astype(int)[:3]
    assert abs(values(one)[3, 5, 7] - np.asarray(expected.dataobj)[tuple(index)]) <= 0.5


@pytest.mark.parametrize("given", ["CT", "T1"])
def test_the_frame_of_reference_is_kept_where_the_reference_has_one(given, tmp_path):
    """On another grid than its slices, as of a lowres image. A T1 that never was DICOM lies in a world of its own."""
    sources("CT", tmp_path / "in")
    (made,) = studies_from(tmp_path / "in", STACK, tmp_path / "studies", subject="p01")
    own = read_volume(made.files["CT"], "image")
    finer = own.grid.scaled((24, 20, 15), np.zeros(3), np.array([1, 1, 0.5]))
    results = results_on(Volume(np.ones(finer.shape), finer), given, tmp_path / "results", ["T2FLAIR"])
    written = write_dicom(results, tmp_path / "out", made.folder / "dicom_source.json")
    frames = {one.FrameOfReferenceUID for folder in written.values() for one in images(folder)}
    assert len(frames) == 1 and (FRAME_UID in frames) == (given == "CT")


def test_series_appear_whole_or_not_at_all(phantom_files, tmp_path, monkeypatch):
    reference = read_volume(phantom_files / "T1.nii.gz", "image")
    results = results_on(reference, "T1", tmp_path / "results", ("CT",))

    def full(path, *_):
        if path.name == "00005.dcm":
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(write, "_save", full)
        with pytest.raises(Any2allError, match="could not be written: No space left"):
            write_dicom(results, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results"]
    write_dicom(results, tmp_path / "out")
    with pytest.raises(Any2allError, match="the folder is in use"):
        write_dicom(results, tmp_path / "out")
    before = images(tmp_path / "out" / "CT")[0].SeriesInstanceUID
    write_dicom(results, tmp_path / "out", overwrite=True)
    assert images(tmp_path / "out" / "CT")[0].SeriesInstanceUID != before
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    with pytest.raises(Any2allError, match="the folder is in use"):
        write_dicom(results, tmp_path / "out", overwrite=True)
    with pytest.raises(Any2allError, match="no results of Any2all"):
        write_dicom(phantom_files, tmp_path / "other")


@pytest.mark.parametrize(
    ("low", "high", "units", "keep_zero"),
    [
        (-1000, 1900, "HU", False),
        (0, 35, "HU", False),
        (-5, 3000, "a.u.", False),
        (0, 4, "SUVr", True),
        (-1, 4, "SUVr", True),
        (0, 1e-7, "a.u.", False),
        (-1e6, 1e7, "a.u.", False),
    ],
)
def test_sixteen_bits_hold_any_range_to_half_a_step(low, high, units, keep_zero):
    data = np.random.default_rng(0).uniform(low, high, (9, 8, 7)).astype(np.float32)
    found = to_stored(data, units, keep_zero)
    back = found.stored * float(found.slope) + float(found.intercept)
    rounding = np.spacing(np.abs(data).max())  # of float32
    assert np.abs(back - data).max() <= 0.5 * float(found.slope) * (1 + 1e-6) + rounding
    assert len(found.slope) <= 16 and len(found.intercept) <= 16
    assert not keep_zero or found.intercept == "0"


def test_decimal_strings_fit_and_keep_their_digits():
    for value in (-123.45678901234, 1e-9 / 3, -1 / 3e7, 1e7 / 3, 0.0, -4.0):
        assert len(decimal(value)) <= 16 and abs(float(decimal(value)) - value) <= 1e-8 * abs(value)


def test_an_affine_of_any_order_keeps_every_voxel_in_place():

    rng = np.random.default_rng(1)
    for columns in ([2, 0, 1], [1, 2, 0], [0, 1, 2]):
        affine = np.eye(4)
        affine[:3, :3] = (OBLIQUE[:3, :3] / [1.25, 1.5, 3.3])[:, columns] * [1.0, 1.1, 1.2] * [-1, 1, -1]
        affine[:3, 3] = 10, -20, 30
        volume = Volume(rng.normal(size=(5, 6, 7)), Grid((5, 6, 7), affine))
        slices = as_slices(volume)
        for index in ((0, 0, 0), (1, 2, 3), (4, 3, 2)):
            index = tuple(np.minimum(index, np.array(slices.data.shape) - 1))
            i, j, k = index
            place = slices.positions[k] + i * slices.spacing[1] * slices.orientation[:3]
            place = place + j * slices.spacing[0] * slices.orientation[3:]
            there = np.rint(volume.grid.index_of(place * [-1, -1, 1])).astype(int)
            assert np.abs(volume.grid.at(there) - place * [-1, -1, 1]).max() < 1e-9
            assert slices.data[index] == volume.data[tuple(there)]


def test_axial_and_other_slices_have_their_usual_display():
    axial = Volume(np.zeros((4, 5, 6)), Grid((4, 5, 6), np.diag([1.0, 1.0, 3.0, 1.0])))

    assert np.allclose(as_slices(axial).orientation, [1, 0, 0, 0, 1, 0])
    sagittal = Volume(np.zeros((4, 5, 6)), Grid((4, 5, 6), np.diag([5.0, 1.0, 1.0, 1.0])))
    assert np.allclose(as_slices(sagittal).orientation, [0, 1, 0, 0, 0, -1])
    coronal = Volume(np.zeros((4, 5, 6)), Grid((4, 5, 6), np.diag([1.0, 5.0, 1.0, 1.0])))
    assert np.allclose(as_slices(coronal).orientation, [1, 0, 0, 0, 0, -1])
