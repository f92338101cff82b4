"""The panel's model: why Apply is disabled, the study that it makes, the time that it foresees, and what is saved."""

from __future__ import annotations

import io
import json
import sys
import zipfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import lib_path
from Any2allLib.form import Form, Row, VolumeFacts
from Any2allLib.protocol import ServerInfo
from lib_servers import info_document
from small_form import INFO, SCENE


def test_ready(form):
    assert form.problem(INFO, SCENE) == "" and form.problem(INFO) == ""
    assert list(form.rows) == list(INFO.names)
    assert form.outputs == ["T2", "T2FLAIR", "T2star", "CT", "PET"]
    assert (form.reference_modality, form.reference_volume) == ("T1", "v1")


def given(name: str, *row: object, **settings: object):
    """A change of the form: this row, and these settings of the whole form."""
    of_row = {key: settings.pop(key) for key in list(settings) if key not in ("steps", "samples", "seed")}

    def change(form: Form) -> None:
        form.rows[name] = Row(*row, **of_row)
        for key, value in settings.items():
            setattr(form, key, value)

    return change


def all_available(form: Form) -> None:
    for name, row in form.rows.items():
        row.status, row.volume = "available", name


def nothing_wanted(form: Form) -> None:
    for row in form.rows.values():
        row.wanted = False


T1 = ("T1", "available", "v1")
CASES = {
    "Connect to a server": given(*T1),
    "at least one modality as available": given("T1"),
    "nothing is left to fill in": all_available,
    "at least one output": nothing_wanted,
    "'3: T1 SMITH' is used for both T1 and T2": given("T2", "available", "v1"),
    "T2 is ticked as available: choose its volume": given("T2", "available"),
    "T2 is ticked as undersampled: choose a volume, or a raw data file": given("T2", "undersampled"),
    "The volume of T2 is no longer in the scene": given("T2", "available", "v9"),
    "200 million voxels; this server takes 134 million": given("T2", "available", "v3"),
    "CT is a result of Any2all, not an acquired image: choose the acquired one": given("CT", "available", "v4"),
    "T2 is a result of Any2all": given("T2", "undersampled", "v4"),
    "PET is a result of Any2all": given("PET", "noisy", "v4"),
    "CT is never measured as raw data": given("CT", "undersampled", "v2"),
    "raw data of T2 does not exist: gone.h5": given("T2", "undersampled", raw_file="/no/gone.h5"),
    "acceleration of T2 is 0": given("T2", "undersampled", "v2", acceleration=0),
    "number of coils of T2 is 200": given("T2", "undersampled", "v2", coils=200),
    "ACS lines of T2 is -1": given("T2", "undersampled", "v2", acs_lines=-1),
    "noise of T2 is 0": given("T2", "undersampled", "v2", noise_std=0.0),
    "T2 is ticked as noisy: choose its volume": given("T2", "noisy"),
    "'3: T1 SMITH' is used for both T1 and PET": given("PET", "noisy", "v1"),
    "PET is ticked as blurred: enter the width of the blur": given("PET", "blurred", "v2"),
    "width of the blur of PET is above 0": given("PET", "blurred", "v2", psf_fwhm_mm=(5.0, 0.0, 5.0)),
    "noise of PET is -1; it is above 0, or left to be estimated": given("PET", "noisy", "v2", image_noise_std=-1.0),
    "mcs needs at least 5 steps where PET is noisy": given("PET", "noisy", "v2", steps=4),
    "number of steps is 2000; this server takes 1 to 1000": given(*T1, steps=2000),
    "number of samples is 0": given(*T1, samples=0),
    "The seed is -1": given(*T1, seed=-1),
    "mcs needs at least 5 steps where T2 is undersampled": given("T2", "undersampled", "v2", steps=4),
    "One step gives the same image": given(*T1, steps=1, samples=2),
    "does not know ASL": given("ASL", "available", "v2"),
}


@pytest.mark.parametrize("words", CASES)
def test_why_apply_is_disabled(form, words):
    CASES[words](form)
    info = None if words.startswith("Connect") else INFO
    scene = {**SCENE, **{name: VolumeFacts(name) for name in INFO.names}}
    found = form.problem(info, scene)
    assert words in found and found.endswith(".")


@pytest.mark.parametrize("state, words", [("failing", "cannot compute at the moment"), ("stopping", "being stopped")])
def test_a_server_that_takes_no_jobs(form, state, words):
    info = ServerInfo.parse({**info_document(), "state": state})
    assert words in form.problem(info, SCENE) and "Ready" not in form.problem(info, SCENE)
    info = ServerInfo.parse({**info_document(), "state": state, "reason": "the weights are gone"})
    assert form.problem(info, SCENE).endswith("It says: the weights are gone.")
    for usable in ("ok", "starting"):
        assert form.problem(ServerInfo.parse({**info_document(), "state": usable}), SCENE) == ""


def test_raw_data_needs_its_voxel_size(form, raw):
    form.rows["T1"] = Row()
    form.rows["T2"] = Row("undersampled", raw_file=raw)
    assert "does not say its voxel size" in form.problem(INFO, SCENE)
    form.rows["T2"].voxel_size_mm = (1.0, 0.0, 5.0)
    assert "above 0" in form.problem(INFO, SCENE)
    form.rows["T2"].voxel_size_mm = (1.0, 1.0, 5.0)
    assert form.problem(INFO, SCENE) == ""
    assert (form.reference_modality, form.reference_volume) == ("T2", "")


def test_both_files_of_a_bart_pair_go(form, tmp_path):
    info = ServerInfo.parse({**info_document(), "accepts": {"images": [".nii.gz"], "raw": [".cfl"]}})
    form.rows["T2"] = Row("undersampled", raw_file=str(tmp_path / "scan.cfl"), voxel_size_mm=(1.0, 1.0, 5.0))
    (tmp_path / "scan.cfl").write_bytes(b"data")
    assert form.problem(info, SCENE) == "The raw data of T2 does not exist: scan.hdr."
    (tmp_path / "scan.hdr").write_text("# Dimensions")
    assert form.problem(info, SCENE) == ""
    raw = {Path(file).name: name for file, name in form.upload_names().items() if "scan" in file}
    assert raw == {"scan.cfl": "T2_raw.cfl", "scan.hdr": "T2_raw.hdr"}
    assert form.study_document()["modalities"]["T2"]["kspace"] == "T2_raw.cfl"


@pytest.mark.parametrize("name, header", [("a.h5", b"ismrmrd_header"), ("a.h5", b"<ismrmrdHeader"), ("a.mrd", b"")])
def test_the_header_of_a_scanners_file_says_the_voxel_size(tmp_path, name, header):
    from Any2allLib.raw_file import tells_voxel_size

    (tmp_path / name).write_bytes(bytes(1000) + header + bytes(1000))
    assert tells_voxel_size(str(tmp_path / name))


@pytest.mark.parametrize("name, says", [("voxel_size_mm", True), ("affine", True), ("affine_of_other", False)])
def test_files_that_say_their_voxel_size(form, tmp_path, name, says):
    array = io.BytesIO()
    with zipfile.ZipFile(array, "w") as archive:
        archive.writestr(f"{name}.npy", b"")
    (tmp_path / "a.npz").write_bytes(array.getvalue())
    (tmp_path / "a.h5").write_bytes(bytes(3_000_000) + name.encode() + bytes(1000))
    for suffix in ("npz", "h5"):
        form.rows["T2"] = Row("undersampled", raw_file=str(tmp_path / f"a.{suffix}"))
        problem = form.problem(ServerInfo.parse({**info_document(), "limits": {}}), SCENE)
        assert (problem == "") == says, problem


def test_hdf5_as_h5py_writes_it(tmp_path):
    h5py, numpy = pytest.importorskip("h5py"), pytest.importorskip("numpy")
    from Any2allLib.raw_file import tells_voxel_size

    said = (("kspace", "voxel_size_mm"), ("voxel_size_mm", "kspace"), ("kspace", "affine"), ("affine", "kspace"))
    for order in (*said, ("kspace",)):
        file = tmp_path / f"{len(order)}{''.join(order)}.h5"
        with h5py.File(file, "w") as written:
            for key in order:
                written[key] = [1.0, 1.0, 5.0] if key != "kspace" else numpy.zeros(500_000)
        assert tells_voxel_size(str(file)) == (order in said)


def test_what_was_entered_for_another_file_does_not_overrule_what_a_file_says(form, tmp_path, raw):
    """Its field is hidden then; the server would take the study's voxel size, and the images lie on a wrong grid."""
    row = form.rows["T2"] = Row("undersampled", raw_file=raw, voxel_size_mm=(0.9, 0.9, 5.0))
    assert form.study_document()["modalities"]["T2"]["voxel_size_mm"] == [0.9, 0.9, 5.0]
    (tmp_path / "fastmri.h5").write_bytes(bytes(1000) + b"ismrmrd_header")
    row.raw_file = str(tmp_path / "fastmri.h5")
    assert form.study_document()["modalities"]["T2"] == {"status": "undersampled", "kspace": "T2_raw.h5"}
    row.voxel_size_mm = (0.9, 0.0, 5.0)
    assert form.problem(INFO, SCENE) == "", "nobody could correct what is not shown"
    row.raw_file = raw
    assert "above 0" in form.problem(INFO, SCENE)


def test_raw_data_limits(form, tmp_path):
    (tmp_path / "a.dat").write_bytes(b"")
    form.rows["T2"] = Row("undersampled", raw_file=str(tmp_path / "a.dat"))
    assert "'.dat'; possible are .h5, .npy, .npz" in form.problem(INFO, SCENE)
    (tmp_path / "a.npy").write_bytes(bytes(2**20 + 1))
    form.rows["T2"] = Row("undersampled", raw_file=str(tmp_path / "a.npy"), voxel_size_mm=(1, 1, 5))
    assert "this server takes 1 MB at once" in form.problem(INFO, SCENE)


def test_a_server_without_presets(form):
    info = ServerInfo.parse({**info_document(), "presets": {}})
    assert "no preset 'balanced'" in form.problem(info, SCENE)
    form.sampler, form.steps, form.samples = "mds", 20, 1
    assert form.problem(info, SCENE) == ""


# -- saved with the scene ----------------------------------------------------------------------------------------------


def test_saved_and_read_again(form):
    form.rows["T2"] = Row("undersampled", "v2", "/a/b.h5", (1.0, 1.5, 5.0), 6, 12, 4, 0.02, 3, False)
    form.rows["CT"] = Row("blurred", "v3", trajectory="/a/t.npy", image_noise_std=2.5, psf_fwhm_mm=(6.0,))
    form.rows["PET"] = Row("lowres", "v3", psf_fwhm_mm=(6.0, 5.0, 4.0), slice_profile="gaussian")
    form.preset, form.registration, form.reference = "best", "none", "T2"
    form.sampler, form.steps, form.samples, form.seed = "mcs", 12, 3, 5
    assert Form.from_json(json.loads(json.dumps(form.to_json()))) == form


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"rows": [], "preset": 3, "steps": "many", "unknown": 1},
        {"rows": {"T1": 5}, "preset": "slow", "seed": 1.5, "sampler": []},
        {"registration": "affine", "reference": None, "steps": True},
    ],
)
def test_what_cannot_be_used_is_left_out(document):
    assert Form.from_json(document) == Form()


def test_a_newer_modules_form_keeps_what_is_known():
    row = {"status": "imagined", "volume": "v1", "voxel_size_mm": [1, 2], "coils": "8", "extra": 1, "acceleration": 6}
    row |= {"psf_fwhm_mm": [1, 2], "slice_profile": "round", "image_noise_std": "much"}
    kept = Form.from_json({"rows": {"T1": row, "New": {"status": "available"}}, "preset": "fast"})
    assert kept.rows["T1"] == Row(volume="v1", acceleration=6) and kept.preset == "fast"
    kept.sampler = "from_the_future"
    kept.fit(INFO)
    assert list(kept.rows) == list(INFO.names) and kept.sampler is None


def test_library_is_found():
    assert Path(Form.problem.__code__.co_filename).parent == lib_path.LIBRARY


# -- CDM ---------------------------------------------------------------------------------------------------------------


def test_cdm_is_sent_without_steps_and_counted_by_its_own_seconds(form, tmp_path):
    form.sampler, form.steps, form.samples, form.seed = "cdm", 7, 3, 5
    assert form.problem(INFO, SCENE) == ""
    assert form.study_document()["sampler"] == {"name": "cdm", "samples": 3, "seed": 5}
    assert form.expected_seconds(INFO, 30) == pytest.approx(0.05 * 30 * 3)
    spec = pytest.importorskip("any2all.study.spec")
    stack = pytest.importorskip("any2all.stack").load_stack()
    presets = pytest.importorskip("any2all.study.presets")
    (tmp_path / "T1.nii.gz").write_bytes(b"")
    form.samples = None
    for form.preset in ("fast", "balanced", "best"):
        resolved = presets.resolve_sampler(spec.parse_study(form.study_document(), stack, tmp_path), "per_modality")
        assert form.effective_sampler(INFO) == (resolved.name, resolved.steps, resolved.samples)


def test_cdm_waits_until_nothing_is_undersampled(form):
    form.sampler = "cdm"
    form.rows["T2"] = Row("undersampled", "v2")
    assert form.problem(INFO, SCENE) == (
        "cdm takes only what is available, and T2 is undersampled: choose another sampler."
    )
    form.sampler = "mds"
    assert form.problem(INFO, SCENE) == ""


def test_a_server_without_cdm_offers_none(form):
    document = info_document()
    del document["samplers"]["cdm"]
    form.sampler = "cdm"
    info = ServerInfo.parse(document)
    assert form.misfit("cdm", info) == "This server has no cdm."
    form.fit(info)
    assert form.sampler is None


def test_a_server_that_does_not_say_what_its_samplers_take_is_asked_as_before(form):
    document = info_document()
    del document["samplers"]["mcs"]["takes"], document["samplers"]["mds"], document["samplers"]["mps"]
    info = ServerInfo.parse(document)
    assert info.samplers["mcs"].takes == ("available", "undersampled") and info.samplers["mcs"].weights is None
    assert info.samplers["cdm"].weights.version == "0.1.0"
    form.rows["T2"] = Row("undersampled", "v2")
    assert form.misfit("mcs", info) == "" and form.misfit("cdm", info) != ""
    form.rows["T2"] = Row("noisy", "v2")
    assert form.problem(info, SCENE).startswith("This server takes no image that is noisy: tick T2 as available")
