"""Series made with pydicom come back with their geometry to 1e-4 mm and their units to rounding."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from any2all.dicom import find_series, read_image, read_series
from any2all.dicom.pixels import stored_values
from any2all.dicom.series import scan
from any2all.errors import Any2allError
from dicom_builders import (
    AXIAL,
    CT,
    DOSE,
    HALF_LIFE,
    MPRAGE,
    OBLIQUE,
    PET,
    classic,
    enhanced,
    enhanced_mr,
    group,
    pattern,
    ras,
    save,
    tracer,
    write_all,
)
from highdicom.frame import encode_frame
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless


def only(folder):
    (series,) = find_series(folder)
    return series


def same_geometry(volume, lps):
    """Corner positions, which see every error of the affine; LPS of the written order against what was read."""
    corners = np.array([[i, j, k] for i in (0, volume.grid.shape[0] - 1) for j in (0, 5) for k in (0, 7)])
    return np.abs(volume.grid.at(corners) - (corners @ ras(lps)[:3, :3].T + ras(lps)[:3, 3])).max() < 1e-4


def flipped(lps, count):
    """The same slices, stacked against their normal."""
    other = lps.copy()
    other[:3, 2] *= -1
    other[:3, 3] = (lps @ [0, 0, count - 1, 1])[:3]
    return other


def slope_of(k):
    return 0.5 + 0.125 * k, -3.0 * k


def test_classic_mr_oblique_with_a_slope_of_its_own_for_each_slice(tmp_path):
    stored = pattern()
    write_all(classic("MR", stored, OBLIQUE, MPRAGE, slope_of), tmp_path / "a" / "b", suffix=".ima")
    volume = read_series(only(tmp_path))
    expected = np.stack([stored[:, :, k] * slope_of(k)[0] + slope_of(k)[1] for k in range(8)], axis=2)
    assert same_geometry(volume, OBLIQUE)
    assert np.allclose(volume.data, expected, rtol=1e-6)


def test_slices_are_sorted_along_their_normal_whatever_their_names_and_numbers(tmp_path):
    stored, other = pattern(), flipped(OBLIQUE, 8)
    write_all(classic("MR", stored, other, MPRAGE), tmp_path, order=[3, 0, 7, 1, 6, 2, 5, 4])
    volume = read_series(only(tmp_path))
    assert same_geometry(volume, OBLIQUE)
    assert np.array_equal(volume.data, stored[:, :, ::-1])


def test_enhanced_mr_takes_geometry_and_slope_from_each_frame(tmp_path):
    stored = pattern()
    save(enhanced_mr(stored, OBLIQUE, slope_of), tmp_path / "enhanced")
    volume = read_series(only(tmp_path))
    expected = np.stack([stored[:, :, k] * slope_of(k)[0] + slope_of(k)[1] for k in range(8)], axis=2)
    assert same_geometry(volume, OBLIQUE)
    assert np.allclose(volume.data, expected, rtol=1e-6)


def test_ct_is_in_hu_and_its_padding_is_air(tmp_path):
    stored = pattern().astype(np.int16)
    stored[0, 0, :] = -2000
    slices = classic("CT", stored, AXIAL, {**CT, "PixelPaddingValue": -2000}, lambda k: (1.0, -1024.0))
    for one in slices:
        one["PixelPaddingValue"].VR = "SS"
    write_all(slices, tmp_path)
    image = read_image(only(tmp_path))
    assert image.units == "HU" and any("padding" in warning for warning in image.warnings)
    assert np.array_equal(image.volume.data[1:], stored[1:] - 1024.0)
    assert (image.volume.data[0, 0] == -1000).all()


def test_enhanced_ct_is_in_hu(tmp_path):
    tags = {
        "SeriesDescription": "head",
        "BodyPartExamined": "HEAD",
        "ImageType": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
    }
    save(enhanced("CT", pattern(), OBLIQUE, lambda k: (1.0, -1024.0), tags), tmp_path / "one")
    image = read_image(only(tmp_path))
    assert image.units == "HU" and same_geometry(image.volume, OBLIQUE)
    assert np.array_equal(image.volume.data, pattern() - 1024.0)


def test_enhanced_pet_says_its_units_and_reference_time_elsewhere(tmp_path):
    tags = {"AttenuationCorrected": "YES", "DecayCorrected": "YES", "DecayCorrectionDateTime": "20240229103000"}
    tags |= {"PatientWeight": "80", "RadiopharmaceuticalInformationSequence": tracer()}
    tags["RadiopharmaceuticalInformationSequence"][0].RadiopharmaceuticalStartDateTime = "20240229093000"
    image = enhanced("PT", pattern(), OBLIQUE, lambda k: (2.5 + k, 0.0), tags)
    unit = group(CodeValue="Bq/ml", CodingSchemeDesignator="UCUM", CodeMeaning="Becquerels/milliliter")
    mapping = group(MeasurementUnitsCodeSequence=[unit])
    image.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence = [mapping]
    save(image, tmp_path / "one")
    found = read_image(only(tmp_path))
    activity = np.stack([pattern()[:, :, k] * (2.5 + k) for k in range(8)], axis=2)
    assert np.allclose(found.volume.data, activity * 80e3 / (DOSE * 0.5 ** (3600 / HALF_LIFE)), rtol=1e-6)


def pet(tmp_path, stored, **tags):
    slices = classic("PT", stored, AXIAL, {**PET, **tags}, lambda k: (2.5 + k, 0.0))
    write_all(slices, tmp_path)
    return read_image(only(tmp_path)), np.stack([stored[:, :, k] * (2.5 + k) for k in range(8)], axis=2)


def test_suv_decays_the_dose_to_the_start_of_the_series(tmp_path):
    image, activity = pet(tmp_path, pattern())
    decayed = DOSE * 0.5 ** (3600 / HALF_LIFE)  # given at 9:30, series at 10:30
    assert image.units == "SUV"
    assert np.allclose(image.volume.data, activity * 80e3 / decayed, rtol=1e-6)


def test_suv_of_a_dose_corrected_to_administration_does_not_decay(tmp_path):
    image, activity = pet(tmp_path, pattern(), DecayCorrection="ADMIN")
    assert np.allclose(image.volume.data, activity * 80e3 / DOSE, rtol=1e-6)


def test_a_rewritten_series_time_is_replaced_by_the_first_frames_own(tmp_path):
    image, activity = pet(tmp_path, pattern(), SeriesTime="150000")
    rate = math.log(2) / HALF_LIFE
    mean_rate = math.log(rate * 600 / (1 - math.exp(-rate * 600))) / rate
    waited = 3605 + mean_rate - 300  # 9:30:00 to 10:30:05, then back from the frame's reference time
    assert np.allclose(image.volume.data, activity * 80e3 / (DOSE * 0.5 ** (waited / HALF_LIFE)), rtol=1e-6)
    assert any("Series Time" in warning for warning in image.warnings)


def test_a_tracer_given_before_midnight(tmp_path):
    late = tracer()
    late[0].RadiopharmaceuticalStartTime = "233000"
    tags = {"SeriesTime": "003000", "AcquisitionTime": "003001", "RadiopharmaceuticalInformationSequence": late}
    image, activity = pet(tmp_path, pattern(), **tags)
    assert np.allclose(image.volume.data, activity * 80e3 / (DOSE * 0.5 ** (3600 / HALF_LIFE)), rtol=1e-6)


def test_gml_is_suv_already_and_philips_counts_take_the_private_factor(tmp_path):
    image, values = pet(tmp_path / "gml", pattern(), Units="GML", RadiopharmaceuticalInformationSequence=None)
    assert np.allclose(image.volume.data, values, rtol=1e-6)
    slices = classic("PT", pattern(), AXIAL, {**PET, "Units": "CNTS"}, lambda k: (2.5 + k, 0.0))
    for one in slices:
        one.add_new(0x70530010, "LO", "Philips PET Private Group")
        one.add_new(0x70531000, "DS", "0.000125")
    write_all(slices, tmp_path / "counts")
    assert np.allclose(read_series(only(tmp_path / "counts")).data, values * 0.000125, rtol=1e-6)


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"PatientWeight": None}, "Patient's Weight is missing"),
        ({"PatientWeight": "0"}, "Patient's Weight is missing"),
        ({"RadiopharmaceuticalInformationSequence": None}, "Radiopharmaceutical Information is missing"),
        ({"Units": "CNTS"}, "the scanner's factor to SUV is not in the file"),
        ({"Units": "PROPCPS"}, "no SUV can be made of these PET units"),
        ({"CorrectedImage": ["DECY"]}, "not corrected for attenuation and decay"),
        ({"DecayCorrection": "NONE"}, "reference time of the decay correction"),
        ({"SeriesDate": "20240301", "AcquisitionDate": "20240301", "SeriesTime": "233000"}, None),
        ({"SeriesTime": "150000", "FrameReferenceTime": None}, "the frame's own times are missing"),
    ],
)
def test_pet_without_what_suv_needs_is_refused_in_words(tmp_path, tags, words):
    if tags.get("RadiopharmaceuticalInformationSequence", 1) is None:
        slices = classic("PT", pattern(), AXIAL, PET, lambda k: (1.0, 0.0))
        for one in slices:
            del one.RadiopharmaceuticalInformationSequence
    else:
        slices = classic("PT", pattern(), AXIAL, {**PET, **tags}, lambda k: (1.0, 0.0))
    write_all(slices, tmp_path)
    if words is None:  # a time without a date is taken for that day's: the scan's own day
        assert read_image(only(tmp_path)).units == "SUV"
        return
    with pytest.raises(Any2allError, match=words):
        read_image(only(tmp_path))


def test_an_impossible_uptake_time_is_refused(tmp_path):
    early = tracer()
    early[0].RadiopharmaceuticalStartDateTime = "20240101093000"
    write_all(
        classic("PT", pattern(), AXIAL, {**PET, "RadiopharmaceuticalInformationSequence": early}, lambda k: (1.0, 0.0)),
        tmp_path,
    )
    with pytest.raises(Any2allError, match="from injection to scan is impossible"):
        read_image(only(tmp_path))


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_compressed_pixels_are_decoded(tmp_path, syntax):
    stored = pattern()
    for k, one in enumerate(classic("CT", stored, AXIAL, CT, lambda k: (2.0, -1000.0))):
        plane = np.ascontiguousarray(stored[:, :, k].T)
        one.PixelData = encapsulate([encode_frame(plane, syntax, 16, 16, "MONOCHROME2", 0)])
        one["PixelData"].is_undefined_length = True
        save(one, tmp_path / f"{k}.dcm", syntax)
    assert np.array_equal(read_series(only(tmp_path)).data, stored * 2.0 - 1000)


def test_jpeg_lossless_is_decoded_by_gdcm_alone(tmp_path):
    stored = pattern().astype(np.int16) - 700
    slices = classic("MR", stored, AXIAL, MPRAGE, lambda k: (2.0, 5.0))
    for k, one in enumerate(slices):
        plain = save(one, tmp_path / "plain" / f"{k}.dcm")
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(plain))
        reader.LoadPrivateTagsOn()
        image = sitk.Cast((reader.Execute() - 5.0) / 2.0, sitk.sitkInt16)
        writer = sitk.ImageFileWriter()
        writer.SetFileName(str(tmp_path / f"packed{k}.dcm"))
        writer.UseCompressionOn()
        writer.SetCompressor("JPEG")
        writer.Execute(image)
        packed = pydicom.dcmread(tmp_path / f"packed{k}.dcm")
        assert packed.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.70"
        one.PixelData = packed.PixelData
        one["PixelData"].is_undefined_length = True
        save(one, tmp_path / "lossless" / f"{k}.dcm", "1.2.840.10008.1.2.4.70")
    assert np.array_equal(read_series(only(tmp_path / "lossless")).data, stored * 2.0 + 5.0)


def test_one_series_with_two_echoes_and_one_with_two_time_points_are_split(tmp_path):
    for echo, seed in ((10.0, 1), (90.0, 2)):
        tags = {**MPRAGE, "EchoTime": echo, "SeriesDescription": "dual"}
        write_all(classic("MR", pattern(seed=seed), OBLIQUE, tags, uid="1.2.3"), tmp_path / "echo" / str(seed))
    parts = find_series(tmp_path / "echo")
    assert sorted(one.part for one in parts) == ["echo time 10.0", "echo time 90.0"]
    assert all(len(one.frames) == 8 and read_series(one).grid.shape == (24, 20, 8) for one in parts)
    for number in (1, 2):
        tags = {**MPRAGE, "AcquisitionNumber": number}
        write_all(classic("MR", pattern(seed=number), OBLIQUE, tags, uid="1.2.4"), tmp_path / "time" / str(number))
    assert sorted(one.part for one in find_series(tmp_path / "time")) == ["acquisition 1", "acquisition 2"]


def test_a_second_copy_of_the_same_files_changes_nothing(tmp_path):
    slices = classic("MR", pattern(), OBLIQUE, MPRAGE)
    write_all(slices, tmp_path / "one")
    write_all(slices, tmp_path / "two")
    found = scan(tmp_path)
    assert len(found.series) == 1 and len(found.series[0].frames) == 8
    assert [reason for _, reason in found.skipped] == ["the file is a second copy of the same object"] * 8


def test_bits_above_the_stored_ones_are_not_read(tmp_path):
    stored = pattern(high=4000)
    slices = classic("CT", stored | 0xF000, AXIAL, CT, lambda k: (1.0, -1024.0))
    for one in slices:
        one.BitsStored, one.HighBit = 12, 11
    write_all(slices, tmp_path)
    assert np.array_equal(read_series(only(tmp_path)).data, stored - 1024.0)


def test_enhanced_frames_of_a_shared_sequence_only(tmp_path):
    image = enhanced_mr(pattern(), OBLIQUE, lambda k: (1.0, 0.0))
    for own in image.PerFrameFunctionalGroupsSequence:
        del own.PixelValueTransformationSequence
    shared = group(RescaleSlope="3", RescaleIntercept="-2", RescaleType="US")
    image.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence = [shared]
    save(image, tmp_path / "enhanced")
    assert np.array_equal(read_series(only(tmp_path)).data, pattern() * 3.0 - 2.0)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_frames_of_a_compressed_enhanced_image_keep_their_order(tmp_path, syntax):
    image = enhanced_mr(pattern(), OBLIQUE, lambda k: (1.0 + k, -2.0))
    planes = np.frombuffer(image.PixelData, np.uint16).reshape(8, 20, 24)
    image.PixelData = encapsulate([encode_frame(plane, syntax, 16, 16, "MONOCHROME2", 0) for plane in planes])
    image["PixelData"].is_undefined_length = True
    save(image, tmp_path / "one", syntax)
    assert np.array_equal(read_series(only(tmp_path)).data, pattern() * (1.0 + np.arange(8)) - 2.0)


def test_a_real_file_in_several_transfer_syntaxes_decodes_alike():
    """An MR image with signed values that pydicom ships with itself."""
    plain = stored_values(Path(get_testdata_file("MR_small.dcm", download=False)))
    for other in ("jp2klossless", "RLE", "jpeg_ls_lossless", "bigendian", "implicit", "padded"):
        assert np.array_equal(stored_values(Path(get_testdata_file(f"MR_small_{other}.dcm", download=False))), plain)
