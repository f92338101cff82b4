"""Damaged and misleading input: each kind is refused or warned about in words, and none crashes."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from any2all.dicom import find_series, read_image, read_series, scan, studies_from
from any2all.errors import Any2allError
from any2all.stack import load_stack
from dicom_builders import AXIAL, CT, FLAIR, MPRAGE, OBLIQUE, classic, enhanced_mr, pattern, save, write_all
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit

STACK = load_stack()


def mprage(**tags):
    return classic("MR", pattern(), OBLIQUE, {**MPRAGE, **tags})


def drop(*which):
    def change(slices):
        return [one for k, one in enumerate(slices) if k not in which]

    return change


def each(keyword, value=None, which=None):
    def change(slices):
        for k, one in enumerate(slices):
            if which is None or k in which:
                delattr(one, keyword) if value is None else setattr(one, keyword, value)
        return slices

    return change


def moved(mm, which):
    def change(slices):
        for k in which:
            normal = OBLIQUE[:3, 2] / np.linalg.norm(OBLIQUE[:3, 2])
            place = np.array([float(x) for x in slices[k].ImagePositionPatient]) + mm * normal
            slices[k].ImagePositionPatient = [f"{x:.8g}" for x in place]
        return slices

    return change


def tilted(slices):
    for k, one in enumerate(slices):
        place = np.array([float(x) for x in one.ImagePositionPatient]) + k * 0.8 * OBLIQUE[:3, 1] / 1.5
        one.ImagePositionPatient = [f"{x:.8g}" for x in place]
        one.GantryDetectorTilt = "-13.6"
    return slices


def beside(slices):
    place = np.array([float(x) for x in slices[4].ImagePositionPatient]) + 2 * OBLIQUE[:3, 0]
    slices[4].ImagePositionPatient = [f"{x:.8g}" for x in place]
    return slices


def twice(slices):
    slices[3].ImagePositionPatient = slices[2].ImagePositionPatient
    return slices


def twice_with_times(slices):
    for k, one in enumerate(slices):
        one.AcquisitionTime = f"10{k:02d}00"
    return twice(slices)


def coloured(slices):
    for one in slices:
        one.SamplesPerPixel, one.PhotometricInterpretation, one.PlanarConfiguration = 3, "RGB", 0
        one.PixelData = one.PixelData * 3
    return slices


def smaller(slices):
    slices[2].Rows, slices[2].PixelData = 10, slices[2].PixelData[: 10 * 24 * 2]
    return slices


REFUSED = {
    "a slice is missing": (drop(3), r"1 slice is missing; got 'after slice 3 of 7'; allowed: a slice every 3\.3 mm"),
    "several slices are missing": (drop(2, 3, 6), "3 slices are missing; got 'after slice 2, 4 of 5'"),
    "mixed spacing": (moved(1.4, [5, 6, 7]), "distance between slices changes; got '3.3 to 4.7 mm'"),
    "a position twice": (twice, "slices share a position.*got '1 of 8 slices'"),
    "a position twice, each slice at its own time": (twice_with_times, "slices share a position"),
    "gantry tilt": (tilted, r"gantry tilt.*got '13\.6 degrees; the header says a gantry tilt of -13\.6'"),
    "not in one line": (beside, "do not lie in one line"),
    "no position": (each("ImagePositionPatient", None, [2]), r"Image Position \(Patient\) is missing.*1 of 8 slices"),
    "no orientation": (each("ImageOrientationPatient"), r"Image Orientation \(Patient\) is missing"),
    "no spacing": (each("PixelSpacing"), "Pixel Spacing is missing"),
    "spacing of 0": (each("PixelSpacing", ["0", "0"]), "Pixel Spacing cannot be used"),
    "spacing differs": (each("PixelSpacing", ["2", "2"], [1]), "different pixel spacings"),
    "orientation is no direction": (
        each("ImageOrientationPatient", ["1", "1", "0", "0", "1", "0"]),
        "two unit vectors",
    ),
    "colour": (coloured, "this is a colour image; got 'RGB, 3 values per pixel'"),
    "single slice": (drop(*range(1, 8)), "a single slice"),
    "rows and columns": (smaller, "different numbers of rows and columns; got '10 x 24, 20 x 24'"),
    "constant": (each("PixelData", b"\x01\x00" * 480), "the image is constant"),
    "slope of 0": (each("RescaleSlope", "0"), "Rescale Slope is 0"),
    "no pixel data": (each("PixelData", None, [1]), "a file has no pixel data"),
    "pixel data too short": (each("PixelData", b"\x01\x00" * 100, [1]), "pixel data are truncated.*200 bytes"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_damaged_series_are_refused_in_words(tmp_path, kind):
    change, words = REFUSED[kind]
    write_all(change(mprage()), tmp_path)
    (series,) = find_series(tmp_path)
    with pytest.raises(Any2allError, match=words):
        read_series(series)


def test_a_truncated_file(tmp_path):
    write_all(mprage(), tmp_path)
    file = tmp_path / "IM0003"
    file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(Any2allError, match="truncated"):
        read_series(find_series(tmp_path)[0])


def test_a_header_that_ends_early_is_skipped_and_the_gap_is_seen(tmp_path):
    write_all(mprage(), tmp_path)
    file = tmp_path / "IM0003"
    file.write_bytes(file.read_bytes()[:420])
    found = scan(tmp_path)
    assert [path.name for path, _ in found.skipped] == ["IM0003"]
    with pytest.raises(Any2allError, match="1 slice is missing"):
        read_series(found.series[0])


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGBaseline8Bit])
def test_a_wrong_transfer_syntax(tmp_path, syntax):
    for k, one in enumerate(mprage()):
        one.PixelData = pydicom.encaps.encapsulate([one.PixelData])
        one["PixelData"].is_undefined_length = True
        save(one, tmp_path / f"{k}", syntax)
    with pytest.raises(Any2allError, match="cannot be decoded.*transfer syntax JPEG"):
        read_series(find_series(tmp_path)[0])


def test_an_unknown_transfer_syntax(tmp_path):
    for k, one in enumerate(mprage()):
        one.PixelData = pydicom.encaps.encapsulate([one.PixelData])
        one["PixelData"].is_undefined_length = True
        file = save(one, tmp_path / f"{k}", JPEG2000Lossless)
        file.write_bytes(file.read_bytes().replace(JPEG2000Lossless.encode(), b"1.2.840.10008.1.2.4.99"))
    with pytest.raises(Any2allError, match="the transfer syntax is not known; got '1.2.840.10008.1.2.4.99'"):
        read_series(find_series(tmp_path)[0])


def test_compressed_pixels_under_an_uncompressed_syntax(tmp_path):
    for k, one in enumerate(mprage()):
        one.PixelData = pydicom.encaps.encapsulate([one.PixelData])
        save(one, tmp_path / f"{k}")
    with pytest.raises(Any2allError, match="the pixel data are compressed, but the transfer syntax says"):
        read_series(find_series(tmp_path)[0])


def test_two_subjects_in_one_folder(tmp_path):
    write_all(mprage(), tmp_path / "in")
    other = classic("MR", pattern(), OBLIQUE, MPRAGE, PatientID="OTHER1", PatientName="Else^Body")
    write_all(other, tmp_path / "in" / "more")
    with pytest.raises(Any2allError, match="several patients; got '2 different Patient IDs"):
        studies_from(tmp_path / "in", STACK, tmp_path / "out", subject="p01")
    made = studies_from(tmp_path / "in", STACK, tmp_path / "out")
    assert [one.subject for one in made] == ["subject01", "subject02"]


def test_orientations_are_split_and_single_slices_of_them_refused(tmp_path):
    write_all(mprage(), tmp_path)
    for k, cosines in enumerate((["1", "0", "0", "0", "0", "-1"], ["0", "1", "0", "0", "0", "-1"])):
        (one,) = mprage()[:1]
        one.ImageOrientationPatient = cosines
        save(one, tmp_path / f"other{k}")
    found = find_series(tmp_path)
    assert sorted(len(one.frames) for one in found) == [1, 1, 8]
    assert all("orientation" in one.part for one in found)
    for one in found:
        if len(one.frames) == 1:
            with pytest.raises(Any2allError, match="single slice"):
                read_series(one)


def test_files_that_are_no_dicom_are_skipped_with_a_reason(tmp_path):
    write_all(mprage(), tmp_path)
    (tmp_path / "empty.dcm").write_bytes(b"")
    (tmp_path / "notes.dcm").write_text("not an image, whatever its name" * 20)
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    found = scan(tmp_path)
    assert dict((path.name, reason) for path, reason in found.skipped) == {
        "empty.dcm": "the file is empty",
        "notes.dcm": "the file is not DICOM",
    }
    assert read_series(found.series[0]).data.shape == (24, 20, 8)


SKIPPED = {
    "localizer": ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "a localizer"),
    "scout": ({"SeriesDescription": "AAScout_MPR_sag"}, "a localizer"),
    "MIP": ({"ImageType": ["DERIVED", "PRIMARY", "PROJECTION IMAGE", "MIP"]}, "a projection"),
    "MPR": ({"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, "a reformatted copy"),
    "ADC": ({"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]}, "a diffusion map"),
    "ours": ({"Manufacturer": "Any2all"}, "an estimate is never an input"),
    "screen": ({"Modality": "OT"}, "its Modality is OT"),
}


@pytest.mark.parametrize("kind", SKIPPED)
def test_series_that_are_never_an_input(tmp_path, kind):
    tags, words = SKIPPED[kind]
    write_all(mprage(**tags), tmp_path)
    (series,) = find_series(tmp_path)
    assert words in series.skip
    with pytest.raises(Any2allError, match=words):
        read_series(series)


def test_a_small_jitter_is_warned_about(tmp_path):
    write_all(moved(0.08, [4])(mprage()), tmp_path)
    image = read_image(find_series(tmp_path)[0])
    assert any("varies from 3.22 to 3.38 mm" in warning for warning in image.warnings)


def test_philips_private_scale_slope_is_not_applied_but_named(tmp_path):
    slices = mprage()
    for one in slices:
        one.add_new(0x20050010, "LO", "Philips MR Imaging DD 001")
        one.add_new(0x2005100E, "FL", 0.0123)
    write_all(slices, tmp_path)
    image = read_image(find_series(tmp_path)[0])
    assert np.array_equal(image.volume.data, pattern())
    assert any("private scale slope is not applied" in warning for warning in image.warnings)


def test_a_lossy_compression_is_said(tmp_path):
    slices = mprage()
    for one in slices:
        one.LossyImageCompression = "01"
    write_all(slices, tmp_path)
    assert any("compressed with loss" in warning for warning in read_image(find_series(tmp_path)[0]).warnings)


def test_ct_without_a_slope_is_refused(tmp_path):
    write_all(classic("CT", pattern(), AXIAL, CT), tmp_path)
    with pytest.raises(Any2allError, match="Rescale Slope is missing"):
        read_series(find_series(tmp_path)[0])


def test_a_frame_of_an_enhanced_image_is_missing(tmp_path):
    image = enhanced_mr(pattern(), OBLIQUE, lambda k: (1.0, 0.0))
    numbers = [own.FrameContentSequence[0].InStackPositionNumber for own in image.PerFrameFunctionalGroupsSequence]
    gone = numbers.index(4)
    del image.PerFrameFunctionalGroupsSequence[gone]
    size = 24 * 20 * 2
    image.PixelData = image.PixelData[: gone * size] + image.PixelData[(gone + 1) * size :]
    image.NumberOfFrames = 7
    save(image, tmp_path / "enhanced")
    with pytest.raises(Any2allError, match="1 slice is missing"):
        read_series(find_series(tmp_path)[0])


def test_a_refused_series_leaves_the_others(tmp_path):
    write_all(drop(3)(mprage()), tmp_path / "in" / "t1")
    write_all(classic("MR", pattern(), OBLIQUE, {**FLAIR, "SeriesNumber": 2}), tmp_path / "in" / "flair")
    (made,) = studies_from(tmp_path / "in", STACK, tmp_path / "out", subject="p01")
    assert list(made.files) == ["T2FLAIR"] and "1 slice is missing" in made.refused["T1"]
    (nothing,) = studies_from(tmp_path / "in" / "t1", STACK, tmp_path / "out2", subject="p01")
    assert not nothing.files and not (tmp_path / "out2").exists()


def test_a_folder_without_dicom(tmp_path):
    (tmp_path / "x.txt").write_text("hello")
    with pytest.raises(Any2allError, match="no DICOM image in this folder"):
        studies_from(tmp_path, STACK, tmp_path / "out")
