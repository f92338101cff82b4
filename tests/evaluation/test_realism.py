"""Draws from nothing beside held-out renderings, and our sampler beside every other method."""

import json
from copy import copy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import any2all
import numpy as np
import pytest
import torch
from any2all.evaluation.cases import Cases
from any2all.evaluation.distribution import fid, kid
from any2all.evaluation.evaluate import Evaluation
from any2all.evaluation.features import load_features
from any2all.evaluation.peers import SampledPeer
from any2all.evaluation.predictions import Prediction
from any2all.evaluation.realism import against_every_peer, realism, rivalries, unconditional
from any2all.evaluation.records import Record
from any2all.evaluation.results import BEST, Results
from any2all.evaluation.tasks import Method, Task
from any2all.evaluation.unconditional import (
    FLOOR,
    REFERENCE,
    REFERENCE_SEED,
    TRAINING,
    ImageSet,
    Unconditional,
    nothing,
)
from any2all.samplers import MPS, Ancestral
from any2all.samplers.noise import VolumeNoise
from any2all.stack import Stack, load_stack

STACK = load_stack()
CONFIG = Path(any2all.__file__).parents[1] / "configs" / "evaluate.json"
DRAWN = [
    {"name": "ancestral-3", "sampler": "ancestral", "steps": 3},
    {"name": "mcs-2", "sampler": "mcs", "steps": 2},
    {"name": "ancestral-3-shared", "sampler": "ancestral", "steps": 3, "model": "shared.pt"},
]


@pytest.fixture(scope="module")
def features():
    return load_features()


def experiment(prior, features, folder=None, draws=6, **changes):
    """With rendering replaced: its sets are random discs, for a rendering takes seconds."""

    class Discs(Unconditional):
        def rendered(self, name, heads, seed, lesion_masks=None):
            rng = np.random.default_rng(seed)
            images = {n: rng.uniform(size=(self.draws, 32, 32)).astype(np.float32) for n in STACK.names}
            return ImageSet(name, images, tuple(f"{name}/{i // 3}" for i in range(self.draws)))

    methods = [Method.from_dict(m) for m in DRAWN]
    return Discs(prior, methods, draws, ["held.nii.gz"], features, ["trained.nii.gz"], folder=folder, **changes)


def test_without_data_mps_is_ancestral_sampling(tiny_prior):
    problem, noise = nothing((2, 6, 32, 32)), VolumeNoise((6, 32, 32), 3)
    drawn = [sampler(4).sample(tiny_prior, problem, noise) for sampler in (Ancestral, MPS)]
    assert torch.equal(*drawn)


def test_every_sampler_of_the_config_can_draw_from_nothing(tiny_prior):
    for entry in json.loads(CONFIG.read_text())["unconditional"]["method_list"]:
        peer = SampledPeer(entry["name"], tiny_prior, Method.from_dict(entry).build_sampler(STACK))
        assert peer.capabilities.unconditional and peer.capabilities.samples
        assert peer.sampler.passes(tiny_prior.schedule, False, True) == 50
    drawn = SampledPeer("a", tiny_prior, Ancestral(3))
    assert not drawn.can([], ["T1"], "CT") and not drawn.can(["T2"], [], "T2")  # it would ignore what is given


def test_a_table_of_draws_from_nothing(tiny_prior, features):
    found = experiment(tiny_prior, features)
    whole = Evaluation(tiny_prior, [], [], [], features=features, unconditional=found)
    section = unconditional(Results(whole, []))
    names = [d.name for d in found.distances]
    assert names == ["ancestral-3", "mcs-2", TRAINING, FLOOR]  # shared.pt is not there
    assert "N equal" in section.body[0] and "mps without data is ancestral" in section.body[0]
    assert "KID needs 200 slices: n/a" in section.body[0] and "too large" in section.body[0]
    rows = {line.split("|")[1].strip(): line for line in section.body[1].splitlines()[2:]}
    cells = [cell.strip() for cell in rows["ancestral-3"].split("|")[1:-1]]
    assert cells[1:3] == ["6", "3"] and cells[8] == f"{found.distances[0].fid['CT'].value:.3g}"
    assert section.body[2].count("n/a") == 7 * 4
    drawn, held_out = found.drawn(found.methods[0], tiny_prior), found.rendered(REFERENCE, [], REFERENCE_SEED)
    assert found.distances[0].fid["T1"] == fid(features(drawn.images["T1"]), features(held_out.images["T1"]))
    assert unconditional(Results(replace_unconditional(whole), [])) is None


def replace_unconditional(whole):
    return Evaluation(whole.prior, [], [], [], features=whole.features)


def test_kid_is_there_from_200_draws_on(tiny_prior, features):
    many = experiment(tiny_prior, features, draws=200)
    many.methods = ()
    found = many.distances[-1]
    assert found.n == 200 and found.kid["T1"].n == 200
    assert abs(found.kid["T1"].value) < 5 * found.kid["T1"].error
    assert found.to_json()["kid"]["T1"]["n_reference"] == 200


def test_draws_are_kept_and_do_not_depend_on_their_number(tiny_prior, features, tmp_path, monkeypatch):
    monkeypatch.setattr("any2all.evaluation.unconditional.PART", 4)
    first = experiment(tiny_prior, features, tmp_path).drawn(Method.from_dict(DRAWN[0]), tiny_prior)
    calls = []
    original = Ancestral.sample

    def counting(self, prior, problem, *rest, **named):
        calls.append(problem.shape[0])
        return original(self, prior, problem, *rest, **named)

    monkeypatch.setattr(Ancestral, "sample", counting)
    more = experiment(tiny_prior, features, tmp_path, draws=10).drawn(Method.from_dict(DRAWN[0]), tiny_prior)
    assert calls == [4, 2] and len(more) == 10 and len(more.images) == 6  # the first part of 4 was there
    assert more.images["CT"][:6] == pytest.approx(first.images["CT"], abs=2e-5)
    other = experiment(tiny_prior, features, tmp_path, seed=1).drawn(Method.from_dict(DRAWN[0]), tiny_prior)
    assert calls[2:] == [4, 2] and not np.allclose(other.images["CT"], first.images["CT"], atol=0.1)


def test_what_is_kept_for_another_prior_is_not_taken_for_this_one(tiny_prior, features, tmp_path, monkeypatch):
    """The same grid and folder, but PET over another constant: rendered anew. Another contrast: mcs draws anew."""
    rendered = []

    def slices(heads, count, seed, name):
        rendered.append(name)
        return torch.full((count, 6, 32, 32), 0.1 * len(rendered)), tuple(range(count))

    monkeypatch.setattr("any2all.evaluation.unconditional.RenderedHeads", lambda *_: None)
    monkeypatch.setattr("any2all.evaluation.unconditional._random_slices", slices)
    pet = STACK["PET"]
    brighter = pet.model_copy(update={"normalisation": pet.normalisation.model_copy(update={"maximum": 9.0})})
    stack = Stack(modalities=tuple(brighter if m.name == "PET" else m for m in STACK.modalities))
    other, told = copy(tiny_prior), copy(tiny_prior)
    other.card = replace(tiny_prior.card, stack=stack)
    told.card = replace(tiny_prior.card, contrast=SimpleNamespace(to_json=lambda: {"T1": 0.1}))
    methods, heads = [Method.from_dict(m) for m in DRAWN[:2]], [Path("held.nii.gz")]
    first, again, second = (
        Unconditional(prior, methods, 3, heads, features, folder=tmp_path) for prior in (tiny_prior, tiny_prior, other)
    )
    for some in (first, again, second):
        some.rendered(FLOOR, heads, 1)
    assert len(rendered) == 2
    first.rendered(FLOOR, heads, 1, tmp_path)  # with lesions
    assert len(rendered) == 3
    marks = [[first._mark(method, prior) for prior in (tiny_prior, told)] for method in methods]
    assert marks[0][0] == marks[0][1] and marks[1][0] != marks[1][1]


def cases(groups, per_group=2):
    count = groups * per_group
    slices = torch.rand(count, 6, 32, 32, generator=torch.Generator().manual_seed(0))
    names = tuple(f"r{i // per_group}" for i in range(count))
    return Cases("discs", "rendered", slices, STACK.names, names, np.ones((count, 32, 32), bool))


def test_realism_of_a_prediction_leaves_out_pairs_of_one_rendering(tiny_prior, features):
    some = cases(13, 4)
    results = Results(Evaluation(tiny_prior, [some], [], [], features=features), [])
    truth = some.slices[:, STACK.index("CT")].numpy()
    samples = np.clip(truth + 0.1 * np.random.default_rng(0).normal(size=(4, *truth.shape)), 0, 1).astype(np.float32)
    prediction = Prediction("discs", "T1", "m", tuple(range(52)), 5, 0.1, {"CT": samples}, "mark")
    found = realism(results, some, "CT", prediction)
    assert found.fid == fid(features(samples[0]), features(truth)) and found.fid.n == 52
    every = features(samples.reshape(-1, 32, 32))
    assert found.kid == kid(every, features(truth), list(some.groups) * 4, some.groups) and found.kid.n == 208
    few = replace(prediction, images={"CT": samples[:3]})
    assert realism(results, some, "CT", few).kid is None  # 156 slice samples
    without = Results(Evaluation(tiny_prior, [some], [], []), [])
    assert realism(without, some, "CT", prediction).fid is None


def invented(prior, groups, scores):
    some = cases(groups)
    names = list(some.groups)
    records = []
    for method, mse in scores.items():
        error = (np.asarray(mse) * (1 + 0.1 * np.arange(groups))).repeat(2).tolist()
        lists = [error, [0.9] * len(error), error, [0.9] * len(error), [0.0] * len(error)]
        places = list(range(len(error)))
        records.append(Record("discs", "T1", "CT", method, False, 20, 4, 0.1, places, names, *lists))
    return Results(Evaluation(prior, [some], [Task("T1", ("CT",), ("T1",))], []), records)


def test_every_method_is_tested_over_six_renderings_with_holms_correction(tiny_prior):
    scores = {BEST: 1e-3, "mds-150": 2e-3, "mcs-1": 1.5e-3, "same": 1e-3}
    found = rivalries(invented(tiny_prior, 6, scores))[0]
    # all six agree: p = 2 / 2^6, three tests
    assert found.p_psnr == {"mds-150": pytest.approx(3 / 32), "mcs-1": pytest.approx(3 / 32), "same": 1.0}
    section = against_every_peer(invented(tiny_prior, 6, scores))
    assert "over renderings" in section.body[0] and "0.094" in section.body[1] and "+3.0" in section.body[1]
    assert section.body[1].count("n/a") == 8  # no features: neither FID nor KID


def test_with_fewer_renderings_nothing_is_tested(tiny_prior):
    section = against_every_peer(invented(tiny_prior, 5, {BEST: 1e-3, "mds-150": 2e-3}))
    assert section.body[1].count("not tested") == 2
    assert against_every_peer(invented(tiny_prior, 5, {BEST: 1e-3})) is None
