"""Contract 1: what a study may say, what is filled in, and the words of every refusal."""

import json
import os

import jsonschema_rs
import pytest
from any2all.errors import Any2allError
from any2all.stack import load_stack
from any2all.study import ignored_keys, load_study, parse_study, resolve_sampler, study_json_schema
from hypothesis import given
from hypothesis import strategies as st

STACK = load_stack()
SIMULATE = {"acceleration": 4, "acs_lines": 0, "coils": 8, "noise_std": 0.01, "seed": 0}


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "study"
    (root / "sub").mkdir(parents=True)
    for name in ("t1.nii.gz", "t2.nii.gz", "flair.h5", "maps.npy", "flair.txt", "sub/t1.nii.gz"):
        (root / name).write_bytes(b"x")
    (tmp_path / "secret.nii.gz").write_bytes(b"x")
    os.symlink(tmp_path / "secret.nii.gz", root / "link.nii.gz")
    os.symlink(root / "t1.nii.gz", root / "inner.nii.gz")
    return root


def example():
    return {
        "version": 1,
        "subject": "p01",
        "modalities": {
            "T1": {"status": "available", "file": "t1.nii.gz"},
            "T2FLAIR": {"status": "undersampled", "kspace": "flair.h5", "coil_maps": None, "noise_std": None},
            "T2star": {"status": "undersampled", "file": "t2.nii.gz", "simulate": dict(SIMULATE)},
            "CT": {"status": "missing"},
        },
        "reference": "T1",
        "registration": "rigid",
        "outputs": ["PET", "T2FLAIR", "CT"],
        "preset": "balanced",
        "sampler": {"name": "mcs", "steps": 10, "samples": 4, "seed": 0},
        "save_samples": False,
    }


def simple(**other):
    return {"modalities": {"T1": {"status": "available", "file": "t1.nii.gz"}}, **other}


def refusal(document, folder, **kwargs) -> Any2allError:
    with pytest.raises(Any2allError) as caught:
        parse_study(document, STACK, folder, **kwargs)
    assert "\n" not in str(caught.value)
    return caught.value


def test_the_contracts_example_is_read(folder):
    spec = parse_study(example(), STACK, folder)
    assert tuple(spec.modalities) == STACK.names
    assert (spec.available, spec.undersampled) == (("T1",), ("T2FLAIR", "T2star"))
    assert spec.missing == ("T2", "CT", "PET")
    assert spec.outputs == ("T2FLAIR", "CT", "PET"), "outputs come in stack order"
    assert spec.modalities["T1"].file == (folder / "t1.nii.gz").resolve()
    assert spec.modalities["T2star"].simulate.coils == 8
    assert spec.document == example()


def test_defaults(folder):
    spec = parse_study(simple(), STACK, folder)
    assert spec.reference == "T1"
    assert spec.registration == "rigid"
    assert spec.preset == "balanced"
    assert spec.outputs == ("T2", "T2FLAIR", "T2star", "CT", "PET")
    assert not spec.save_samples


def test_reference_prefers_an_available_modality_over_an_earlier_undersampled_one(folder):
    raw = {"status": "undersampled", "kspace": "flair.h5"}
    both = {"T1": raw, "T2": {"status": "available", "file": "t2.nii.gz"}}
    assert parse_study({"modalities": both}, STACK, folder).reference == "T2"
    assert parse_study({"modalities": {"T2FLAIR": raw, "T2star": raw}}, STACK, folder).reference == "T2FLAIR"


def test_degraded_images_are_measured_outputs_and_lowres_lends_its_grid_last(folder):
    modalities = {
        "T1": {"status": "lowres", "file": "t1.nii.gz", "slice_profile": "gaussian"},
        "CT": {"status": "blurred", "file": "t1.nii.gz", "psf_fwhm_mm": [3, 4.5, 6]},
        "PET": {"status": "noisy", "file": "t1.nii.gz", "noise_std": 0.1},
    }
    spec = parse_study({"modalities": modalities}, STACK, folder)
    assert spec.measured == spec.degraded == ("T1", "CT", "PET") and spec.coupled == ("T1", "CT")
    assert spec.reference == "PET" and spec.outputs == STACK.names
    assert spec.modalities["CT"].psf_fwhm_mm == (3, 4.5, 6) and spec.modalities["T1"].slice_profile == "gaussian"
    alone = parse_study({"modalities": {"T1": modalities["T1"]}}, STACK, folder)
    assert alone.reference == "T1" and resolve_sampler(alone, "per_modality").consistency == "calibrated"
    both = {"modalities": modalities, "preset": "fast"}
    assert resolve_sampler(parse_study(both, STACK, folder), "per_modality").steps == 5, "degraded is no given image"


def test_mps_is_refused_where_slices_are_coupled(folder):
    image = {"status": "lowres", "file": "t1.nii.gz"}
    spec = parse_study({"modalities": {"T1": image}, "sampler": {"name": "mps"}}, STACK, folder)
    with pytest.raises(Any2allError, match="T1 is lowres") as error:
        resolve_sampler(spec, "per_modality")
    assert error.value.key == "sampler.name" and error.value.allowed == ("mcs", "mds")


@pytest.mark.parametrize("name", ["t1.nii.gz", "sub/t1.nii.gz", "sub/../t1.nii.gz", "inner.nii.gz"])
def test_paths_inside_the_folder_are_taken(folder, name):
    spec = parse_study({"modalities": {"T1": {"status": "available", "file": name}}}, STACK, folder)
    assert spec.modalities["T1"].file.is_file()


@pytest.mark.parametrize(
    "name, words",
    [
        ("../secret.nii.gz", "leaves the study's folder"),
        ("link.nii.gz", "leaves the study's folder"),
        ("sub/../../secret.nii.gz", "leaves the study's folder"),
        ("/etc/passwd", "not a relative path"),
        ("~/t1.nii.gz", "not a relative path"),
        ("", "not a relative path"),
        ("t1\0.nii.gz", "not a relative path"),
        ("nothing.nii.gz", "does not exist"),
        ("sub", "does not exist"),
        ("x" * 5000, "does not exist"),
    ],
)
def test_other_paths_are_refused(folder, name, words):
    error = refusal({"modalities": {"T1": {"status": "available", "file": name}}}, folder)
    assert words in str(error)
    assert (error.key, error.value) == ("modalities.T1.file", name)


def one(name, **document):
    """A study of one modality."""
    return {"modalities": {name: document}}


def t1(**document):
    return one("T1", status="available", file="t1.nii.gz", **document)


def t2(**document):
    return one("T2", status="undersampled", **document)


def raw(**document):
    return t2(kspace="flair.h5", **document)


def simulated(**simulate):
    return t2(file="t2.nii.gz", simulate=simulate)


REFUSED = [  # change of the example, key, words
    ({"modalities": {"T1c": {"status": "missing"}}}, "modalities.T1c", "unknown modality"),
    ({"modalities": {"flair": {"status": "missing"}}}, "modalities.flair", "T2FLAIR"),
    ({"modalities": {"T1": {"status": "there"}}}, "modalities.T1.status", "available, undersampled, noisy, blurred"),
    (one("T1", status="noisy"), "modalities.T1.file", "'noisy' needs this key"),
    (one("T1", status="noisy", file="t1.nii.gz", psf_fwhm_mm=4), "modalities.T1.psf_fwhm_mm", "does not take"),
    (one("T1", status="noisy", file="t1.nii.gz", noise_std=0), "modalities.T1.noise_std", "above 0"),
    (one("PET", status="noisy", kspace="flair.h5"), "modalities.PET.file", "needs this key"),
    (one("CT", status="blurred", file="t1.nii.gz"), "modalities.CT.psf_fwhm_mm", "needs this key"),
    (one("CT", status="blurred", file="t1.nii.gz", psf_fwhm_mm=0), "modalities.CT.psf_fwhm_mm", "or a list of 3"),
    (one("CT", status="blurred", file="t1.nii.gz", psf_fwhm_mm=[4, 4]), "modalities.CT.psf_fwhm_mm", "or a list of 3"),
    (
        one("T1", status="lowres", file="t1.nii.gz", slice_profile="sinc"),
        "modalities.T1.slice_profile",
        "box, gaussian",
    ),
    (one("T1", status="lowres", file="t1.nii.gz", coil_maps="flair.h5"), "modalities.T1.coil_maps", "does not take"),
    ({"modalities": {"T1": {"file": "t1.nii.gz"}}}, "modalities.T1.status", "required"),
    ({"modalities": {"T1": "t1.nii.gz"}}, "modalities.T1", "an object"),
    ({"modalities": {"T1": {"status": "available"}}}, "modalities.T1.file", "needs this key"),
    ({"modalities": {"T1": {"status": "missing", "file": "t1.nii.gz"}}}, "modalities.T1.file", "does not take"),
    (t1(noise_std=1.0), "modalities.T1.noise_std", "does not take"),
    (t1(simulate={}), "modalities.T1.simulate", "does not take"),
    (t2(), "modalities.T2", "kspace, or file with simulate"),
    (t2(file="t2.nii.gz"), "modalities.T2.simulate", "needs this key"),
    (raw(file="t2.nii.gz"), "modalities.T2", "either"),
    (raw(simulate={}), "modalities.T2", "either"),
    (t2(kspace="flair.txt"), "modalities.T2.kspace", ".h5, .npy, .npz"),
    (raw(voxel_size_mm=[1, 1]), "modalities.T2.voxel_size_mm", "a list of 3"),
    (raw(voxel_size_mm=[1, 1, 0]), "modalities.T2.voxel_size_mm.2", "above 0"),
    (simulated(acceleration=0), "modalities.T2.simulate.acceleration", "at least 1"),
    (simulated(mask="zigzag"), "modalities.T2.simulate.mask", "equispaced, random"),
    (one("CT", status="undersampled", kspace="flair.h5"), "modalities.CT.status", "available, noisy"),
    ({"modalities": {"CT": {"status": "missing"}}}, "modalities", "generate"),
    ({"modalities": {}}, "modalities", "generate"),
    ({"version": 2}, "version", "allowed: 1"),
    ({"subject": "../p"}, "subject", "letters, digits"),
    ({"subject": 3}, "subject", "letters, digits"),
    ({"colour": "red"}, "colour", "unknown key"),
    ({"reference": "T9"}, "reference", "unknown modality"),
    ({"reference": "CT"}, "reference", "missing modality"),
    ({"registration": "affine"}, "registration", "rigid, none"),
    ({"outputs": ["T1"]}, "outputs.0", "given and is no output"),
    ({"outputs": ["CT", "XX"]}, "outputs.1", "unknown modality"),
    ({"outputs": ["CT", "CT"]}, "outputs.1", "twice"),
    ({"outputs": []}, "outputs", "no output"),
    ({"outputs": "CT"}, "outputs", "a list"),
    ({"preset": "slow"}, "preset", "fast, balanced, best"),
    ({"sampler": {"name": "ddim"}}, "sampler.name", "mps, mds, mcs"),
    ({"sampler": {"steps": 1001}}, "sampler.steps", "at most 1000"),
    ({"sampler": {"steps": 0}}, "sampler.steps", "at least 1"),
    ({"sampler": {"steps": "10"}}, "sampler.steps", "an integer"),
    ({"sampler": {"steps": True}}, "sampler.steps", "an integer"),
    ({"sampler": {"eta": float("nan")}}, "sampler.eta", "at most 1"),
    ({"sampler": {"weights": {"XX": 1.0}}}, "sampler.weights.XX", "unknown modality"),
    ({"sampler": {"temperature": 1.0}}, "sampler.temperature", "unknown key"),
    ({"save_samples": 1}, "save_samples", "true or false"),
]


@pytest.mark.parametrize("change, key, words", REFUSED, ids=[f"{k}-{w[:12]}" for _, k, w in REFUSED])
def test_refusals_name_the_key_and_what_is_allowed(folder, change, key, words):
    error = refusal(
        {**example(), "outputs": None, **change, **({"reference": None} if "modalities" in change else {})}, folder
    )
    assert error.key == key
    assert words in str(error)
    json.dumps(error.as_dict())


def test_everything_available_leaves_nothing_to_fill(folder):
    given = {name: {"status": "available", "file": "t1.nii.gz"} for name in STACK.names}
    assert "nothing is left" in str(refusal({"modalities": given}, folder))


def test_generate_takes_no_data_and_wants_the_whole_stack(folder):
    spec = parse_study({"subject": "g"}, STACK, folder, purpose="generate")
    assert (spec.outputs, spec.reference) == (STACK.names, None)
    error = refusal(simple(), folder, purpose="generate")
    assert error.key == "modalities.T1.status" and "inference" in str(error)


def test_several_problems_make_one_error(folder):
    error = refusal({**example(), "preset": "slow", "registration": "affine"}, folder)
    assert "1 more problem" in error.hint


@pytest.mark.parametrize(
    "text, words",
    [
        ("{", "not readable as JSON"),
        ("[]", "a study is a JSON object"),
        ('{"version": 1, "version": 1}', "twice"),
        ("\x00\xff", "not readable"),
        ("[" * 100_000, "not readable"),
    ],
)
def test_unreadable_study_files(folder, text, words):
    (folder / "study.json").write_text(text, encoding="latin-1")
    with pytest.raises(Any2allError, match=words):
        load_study(folder / "study.json", STACK)


def test_study_file(folder):
    (folder / "study.json").write_text(json.dumps(example()))
    assert load_study(folder / "study.json", STACK).subject == "p01"
    with pytest.raises(Any2allError, match="does not exist"):
        load_study(folder / "other.json", STACK)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2000) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["version", "subject", "modalities", "reference", "registration", "outputs", "preset", "sampler"]
)


@given(
    st.dictionaries(KEYS | st.text(max_size=5), JSON, max_size=4), st.dictionaries(st.sampled_from(STACK.names), JSON)
)
def test_whatever_is_sent_is_understood_or_refused_in_words(tmp_path_factory, document, modalities):
    document.setdefault("modalities", modalities)
    try:
        parse_study(document, STACK, tmp_path_factory.getbasetemp())
    except Any2allError as error:
        assert error.message and error.key is not None
        json.dumps(error.as_dict())


# ---------------------------------------------------------------------------------------------------- presets


def resolved(folder, raw=False, noise_levels="per_modality", **other):
    document = simple(**other)
    if raw:
        document["modalities"]["T2FLAIR"] = {"status": "undersampled", "kspace": "flair.h5"}
    return resolve_sampler(parse_study(document, STACK, folder), noise_levels)


@pytest.mark.parametrize(
    "preset, raw, expected",
    [
        ("fast", False, (1, 1, "calibrated")),
        ("fast", True, (5, 1, "calibrated")),
        ("balanced", True, (10, 4, "moment")),
        ("best", False, (20, 8, "moment")),
    ],
)
def test_presets(folder, preset, raw, expected):
    settings = resolved(folder, raw, preset=preset)
    assert settings.name == "mcs" and settings.eta == 0.85
    assert (settings.steps, settings.samples, settings.consistency) == expected


@pytest.mark.parametrize(
    "raw, said, centred",
    [
        (False, {"preset": "fast"}, True),  # one step: halfway to what the mean network states
        (True, {"preset": "fast"}, False),  # one sample of several steps stays a sample
        (False, {"preset": "balanced"}, True),
        (False, {"sampler": {"steps": 10, "samples": 1}}, False),
        (False, {"preset": "fast", "sampler": {"centre": 0.0}}, False),
    ],
)
def test_what_is_centred(folder, raw, said, centred):
    assert (resolved(folder, raw, **said).centre > 0) == centred


def test_what_the_study_says_wins(folder):
    said = {"steps": 12, "samples": 2, "seed": 7, "eta": 0.0, "consistency": "calibrated"}
    settings = resolved(folder, preset="best", sampler=said)
    assert {k: getattr(settings, k) for k in said} == said


def test_defaults_of_the_papers_samplers(folder):
    mps = resolved(folder, sampler={"name": "mps"}, noise_levels="shared")
    mds = resolved(folder, sampler={"name": "mds"}, preset="fast")
    assert (mps.steps, mps.zeta) == (1000, 1.0)
    assert (mds.steps, mds.eta, mds.eta_convention, mds.gamma, mds.samples) == (150, 0.85, "dds", 20.0, 1)


@pytest.mark.parametrize(
    "kwargs, key, words",
    [
        ({"noise_levels": "shared"}, "sampler.name", "mds, mps"),
        ({"raw": True, "sampler": {"steps": 4}}, "sampler.steps", "5 to 1000"),
        ({"sampler": {"steps": 1, "samples": 4}}, "sampler.samples", "one sample"),
        ({"preset": "fast", "sampler": {"samples": 2}}, "sampler.samples", "one sample"),
    ],
)
def test_refused_samplers(folder, kwargs, key, words):
    with pytest.raises(Any2allError, match=words) as caught:
        resolved(folder, **kwargs)
    assert caught.value.key == key


def test_generate_is_never_one_pass(folder):
    spec = parse_study({"preset": "fast"}, STACK, folder, purpose="generate")
    assert resolve_sampler(spec, "per_modality").steps == 5


def test_json_schema_holds_the_stack_and_every_key(folder):
    schema = study_json_schema(STACK)
    json.dumps(schema)
    assert set(schema["properties"]) == set(example())
    modalities = schema["properties"]["modalities"]["properties"]
    assert tuple(modalities) == STACK.names
    status = {
        n: schema["$defs"][m["$ref"].split("/")[-1]]["properties"]["status"]["enum"] for n, m in modalities.items()
    }
    assert status["CT"] == ["available", "noisy", "blurred", "lowres", "missing"] and "undersampled" in status["T1"]
    jsonschema_rs.Draft202012Validator(schema).validate(example())
    with pytest.raises(jsonschema_rs.ValidationError):
        jsonschema_rs.Draft202012Validator(schema).validate({**example(), "reference": "T3"})


def test_keys_that_the_sampler_does_not_listen_to_are_named(folder):
    (folder / "only_t1.nii.gz").write_bytes(b"not read here")
    modalities = {"T1": {"status": "available", "file": "only_t1.nii.gz"}}
    sampler = {"name": "mcs", "gamma": 3.0, "eta": 0.5, "zeta": 1.0, "steps": 3}
    spec = parse_study({"modalities": modalities, "sampler": sampler}, load_stack(), folder)
    assert ignored_keys(spec, resolve_sampler(spec, "per_modality")) == ("gamma", "zeta")


@pytest.mark.parametrize(
    "said, expected",
    [
        ({}, 0.5),
        ({"centre": 0}, 0.0),
        ({"centre": 1}, 1.0),
        ({"centre": 1, "samples": 1}, 0.0),
        ({"centre": 1, "name": "mds"}, 0.0),
    ],
)
def test_how_far_samples_are_centred(folder, said, expected):
    assert resolved(folder, sampler=said).centre == expected


def test_one_pass_means_one_sample_where_the_study_does_not_ask_for_more(folder):
    settings = resolved(folder, sampler={"steps": 1})
    assert (settings.name, settings.steps, settings.samples) == ("mcs", 1, 1)


def test_a_trajectory_belongs_to_raw_data(tmp_path):
    for name in ("a.npy", "path.npy", "t1.nii.gz"):
        (tmp_path / name).write_bytes(b"")
    raw = {"status": "undersampled", "kspace": "a.npy", "trajectory": "path.npy"}
    spec = parse_study({"modalities": {"T1": raw}}, STACK, tmp_path)
    assert [p.name for p in spec.modalities["T1"].paths] == ["a.npy", "path.npy"]
    refused = {
        "does not take this key": {"status": "available", "file": "t1.nii.gz", "trajectory": "path.npy"},
        "unknown raw data format": raw | {"trajectory": "t1.nii.gz"},
        "the file does not exist": raw | {"trajectory": "other.npy"},
    }
    for words, entry in refused.items():
        with pytest.raises(Any2allError, match=words) as caught:
            parse_study({"modalities": {"T1": entry}}, STACK, tmp_path)
        assert caught.value.key == "modalities.T1.trajectory"


@pytest.mark.parametrize("preset, samples", [("fast", 1), ("balanced", 4), ("best", 8)])
def test_cdm_draws_as_many_samples_as_the_preset_says_by_steps_of_its_own(folder, preset, samples):
    settings = resolved(folder, preset=preset, sampler={"name": "cdm", "steps": 1}, noise_levels="shared")
    assert (settings.name, settings.steps, settings.samples) == ("cdm", 20, samples)
    assert resolved(folder, preset=preset, sampler={"name": "cdm", "samples": 3}).samples == 3


def test_what_means_nothing_to_cdm_is_named(folder):
    sampler = {"name": "cdm", "steps": 3, "seed": 4, "samples": 2, "eta": 0.5}
    spec = parse_study(simple(sampler=sampler), STACK, folder)
    assert ignored_keys(spec, resolve_sampler(spec, "per_modality")) == ("steps", "eta")


def test_cdm_is_refused_where_an_image_is_not_clean(folder):
    with pytest.raises(Any2allError, match="cdm translates clean images, and T2FLAIR is undersampled") as refused:
        resolved(folder, raw=True, sampler={"name": "cdm"})
    error = refused.value
    assert (error.key, error.value) == ("modalities.T2FLAIR.status", "undersampled")
    assert error.allowed == ("available", "missing") and error.hint.startswith("mcs and mds")


def test_cdm_draws_nothing_from_nothing(folder):
    error = refusal({"sampler": {"name": "cdm"}}, folder, purpose="generate")
    assert (error.key, error.value) == ("sampler.name", "cdm") and "cannot draw whole stacks" in str(error)
    assert refusal(simple(sampler={"name": "cdm", "guidance": "oracle"}), folder).key == "sampler.guidance"
