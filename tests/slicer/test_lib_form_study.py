"""The study that the panel's model makes, what it says of it before it is sent, and the time that it foresees."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from Any2allLib.form import Row
from small_form import INFO, SCENE


def test_study_document_names_nobody(form, raw):
    form.rows["T2"] = Row("undersampled", raw_file=raw, voxel_size_mm=(1.0, 1.0, 5.0))
    form.rows["T2FLAIR"] = Row("undersampled", "v2", acceleration=6, acs_lines=12, coils=4)
    form.rows["PET"].wanted = False
    form.steps, form.seed = 20, 7
    names = form.upload_names()
    document = form.study_document()
    assert names == {"v1": "T1.nii.gz", raw: "T2_raw.npy", "v2": "T2FLAIR.nii.gz"}
    assert document["modalities"] == {
        "T1": {"status": "available", "file": "T1.nii.gz"},
        "T2": {"status": "undersampled", "kspace": "T2_raw.npy", "voxel_size_mm": [1.0, 1.0, 5.0]},
        "T2FLAIR": {
            "status": "undersampled",
            "file": "T2FLAIR.nii.gz",
            "simulate": {"acceleration": 6, "acs_lines": 12, "coils": 4, "noise_std": 0.01, "seed": 0},
        },
        "T2star": {"status": "missing"},
        "CT": {"status": "missing"},
        "PET": {"status": "missing"},
    }
    assert document["outputs"] == ["T2", "T2FLAIR", "T2star", "CT"]
    assert (document["subject"], document["reference"], document["preset"]) == ("study", "T1", "balanced")
    assert document["sampler"] == {"steps": 20, "seed": 7}
    assert "SMITH" not in json.dumps([document, list(names.values())])


def test_what_is_sent_is_said_before_it_is_sent(form, raw):
    form.rows["T2"] = Row("undersampled", raw_file=raw)
    form.rows["T2FLAIR"] = Row("undersampled", "v2")
    said = form.what_is_sent(SCENE)
    assert said == [
        "T1: voxels and geometry of the volume '3: T1 SMITH', without its name",
        "T2: the raw data file 'SMITH.npy' as it is, under another name; whatever is written in it goes with it",
        "T2FLAIR: voxels and geometry of the volume 'T2', without its name",
    ]


def test_the_trajectory_goes_with_the_raw_data_where_that_does_not_tell_it(form, tmp_path, raw):
    path = tmp_path / "spokes.npy"
    row = form.rows["T2"] = Row("undersampled", raw_file=raw, voxel_size_mm=(1.0, 1.0, 5.0), trajectory=str(path))
    assert form.problem(INFO, SCENE) == "The trajectory of T2 does not exist: spokes.npy."
    path.write_bytes(b"places")
    assert form.problem(INFO, SCENE) == ""
    assert form.upload_names() == {"v1": "T1.nii.gz", raw: "T2_raw.npy", str(path): "T2_trajectory.npy"}
    assert form.study_document()["modalities"]["T2"]["trajectory"] == "T2_trajectory.npy"
    assert "its trajectory 'spokes.npy'" in form.what_is_sent(SCENE)[1]
    path.write_bytes(bytes(2**20))
    assert "this server takes 1 MB at once" in form.problem(INFO, SCENE)
    row.trajectory = raw
    assert "trajectory of T2 is the file of its raw data" in form.problem(INFO, SCENE)
    row.trajectory = str(tmp_path / "spokes.txt")
    (tmp_path / "spokes.txt").touch()
    assert "trajectory of T2 is of the kind '.txt'" in form.problem(INFO, SCENE)
    with zipfile.ZipFile(tmp_path / "own.npz", "w") as archive:
        archive.writestr("trajectory.npy", b"")
    row.raw_file = str(tmp_path / "own.npz")
    assert form.problem(INFO, SCENE) == "" and "trajectory" not in form.study_document()["modalities"]["T2"]


DEGRADED = {
    "T2": (Row("lowres", "v2", slice_profile="gaussian"), {"slice_profile": "gaussian"}),
    "T2FLAIR": (Row("blurred", "v3", psf_fwhm_mm=(5.0, 5.0, 7.0)), {"psf_fwhm_mm": [5.0, 5.0, 7.0]}),
    "CT": (Row("blurred", "v5", psf_fwhm_mm=(6.0,), slice_profile="gaussian"), {"psf_fwhm_mm": 6.0}),
    "PET": (Row("noisy", "v4", image_noise_std=0.15, psf_fwhm_mm=(6.0,)), {"noise_std": 0.15}),
}


def test_degraded_images_are_sent_as_the_bundle_takes_them(form, tmp_path):
    form.rows.update({name: row for name, (row, _) in DEGRADED.items()})
    document = form.study_document()
    for name, (row, settings) in DEGRADED.items():
        assert document["modalities"][name] == {"status": row.status, "file": f"{name}.nii.gz", **settings}
    assert form.problem(INFO) == "" and form.outputs == ["T2", "T2FLAIR", "T2star", "CT", "PET"]
    assert form.measured == ["T2", "T2FLAIR", "CT", "PET"]
    assert form.misfit("mps", INFO).startswith("mps takes only what is available or undersampled or noisy, and T2 is")
    spec = pytest.importorskip("any2all.study.spec")
    stack = pytest.importorskip("any2all.stack").load_stack()
    presets = pytest.importorskip("any2all.study.presets")
    for name in form.upload_names().values():
        (tmp_path / name).write_bytes(b"")
    for form.preset in ("fast", "balanced", "best"):
        parsed = spec.parse_study(form.study_document(), stack, tmp_path)
        assert {n: m.status for n, m in parsed.modalities.items()} == {n: r.status for n, r in form.rows.items()}
        assert (parsed.reference, set(parsed.outputs)) == (form.reference_modality, set(form.outputs))
        resolved = presets.resolve_sampler(parsed, "per_modality")
        assert form.effective_sampler(INFO) == (resolved.name, resolved.steps, resolved.samples)


def test_the_reference_is_the_bundles_where_nothing_is_available(form, tmp_path):
    spec = pytest.importorskip("any2all.study.spec")
    stack = pytest.importorskip("any2all.stack").load_stack()
    form.rows.update({name: row for name, (row, _) in DEGRADED.items()}, T1=Row())
    for name in form.upload_names().values():
        (tmp_path / name).write_bytes(b"")
    document = form.study_document()
    assert document.pop("reference") == spec.parse_study(document, stack, tmp_path).reference == "PET"
    assert form.result_volume == form.reference_volume == "v4"
    form.reference = "T2"  # thick slices: results have thinner ones
    assert (form.reference_volume, form.result_volume) == ("v2", "")


def test_study_document_is_taken_by_the_bundle(form, tmp_path, raw):
    """The server's own parser accepts it, with the same defaults."""
    spec = pytest.importorskip("any2all.study.spec")
    stack = pytest.importorskip("any2all.stack").load_stack()
    form.rows["T2"] = Row("undersampled", raw_file=raw, voxel_size_mm=(1.0, 1.0, 5.0))
    form.rows["T2FLAIR"] = Row("undersampled", "v2")
    for name in form.upload_names().values():
        (tmp_path / name).write_bytes(b"")
    parsed = spec.parse_study(form.study_document(), stack, tmp_path)
    assert (parsed.reference, list(parsed.outputs)) == (form.reference_modality, form.outputs)
    form.sampler, form.steps = "mds", 30
    presets = pytest.importorskip("any2all.study.presets")
    for form.preset in ("fast", "balanced", "best"):
        resolved = presets.resolve_sampler(spec.parse_study(form.study_document(), stack, tmp_path), "per_modality")
        assert form.effective_sampler(INFO) == (resolved.name, resolved.steps, resolved.samples)


def test_effective_sampler_of_presets_is_the_bundles(form, tmp_path):
    spec = pytest.importorskip("any2all.study.spec")
    stack = pytest.importorskip("any2all.stack").load_stack()
    presets = pytest.importorskip("any2all.study.presets")
    (tmp_path / "T1.nii.gz").write_bytes(b"")
    for form.preset in ("fast", "balanced", "best"):
        resolved = presets.resolve_sampler(spec.parse_study(form.study_document(), stack, tmp_path), "per_modality")
        assert form.effective_sampler(INFO) == (resolved.name, resolved.steps, resolved.samples)


def test_names_of_uploads_given_by_the_panel(form):
    assert form.study_document({"v1": "a.nii"})["modalities"]["T1"]["file"] == "a.nii"


def test_reference_that_is_not_given_falls_back(form):
    form.rows["T2"] = Row("available", "v2")
    form.reference = "T2"
    assert (form.reference_modality, form.reference_volume) == ("T2", "v2")
    form.rows["T2"].status = "missing"
    assert form.reference_modality == "T1"


@pytest.mark.parametrize(
    "preset, raw, advanced, seconds",
    [
        ("balanced", False, {}, 2.0 * 30),
        ("balanced", True, {}, 6.0 * 30),
        ("fast", False, {}, 0.1 * 30),
        ("fast", True, {}, 1.0 * 30),
        ("best", True, {}, None),
        ("balanced", False, {"steps": 20, "samples": 2}, 2.0 * 30),
        ("balanced", False, {"steps": 20}, 4.0 * 30),
        ("fast", False, {"steps": 4, "samples": 3}, 0.1 * 30 * 12),
        ("balanced", False, {"sampler": "mds"}, 2.0 * 30 * 15),
        ("balanced", False, {"steps": 1}, 2.0 * 30 / 40),
    ],
)
def test_expected_seconds(form, preset, raw, advanced, seconds):
    form.preset = preset
    if raw:
        form.rows["T2"] = Row("undersampled", "v2")
    for key, value in advanced.items():
        setattr(form, key, value)
    found = form.expected_seconds(INFO, 30)
    assert found is None if seconds is None else found == pytest.approx(seconds)
