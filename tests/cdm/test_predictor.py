"""CDM on volumes: what it copies, draws, counts and refuses; the released pair; its rows in the comparison."""

from __future__ import annotations

import json

import pytest
import torch
from any2all.cdm.card import load_networks, save_networks
from any2all.cdm.predictor import load_cdm
from any2all.errors import Any2allError, Cancelled
from any2all.evaluation.cdm_peers import CDMPeer, cdm_peers
from small_cdm import STACK, card_of, networks_of, saved_cdm, small_cdm, volume

GIVEN = [0, 2]
MISSING = [1, 3, 4, 5]


def test_given_images_are_copied_and_missing_ones_not_looked_at():
    cdm, images = small_cdm(), volume()
    out = cdm.predict(images, GIVEN, samples=2)
    assert out.shape == (2, *images.shape) and all(torch.equal(sample[:, GIVEN], images[:, GIVEN]) for sample in out)
    hidden = images.clone()
    hidden[:, MISSING] = torch.nan
    assert torch.equal(cdm.predict(hidden, GIVEN, samples=2), out)


@pytest.mark.parametrize("guidance", ["source", "unconditional", "null", "oracle"])
def test_the_batch_changes_nothing(guidance):
    cdm, images = small_cdm(), volume(5)
    whole, parts = (
        cdm.predict(images, GIVEN, 2, seed=3, guidance=guidance, truth=images, batch_size=size) for size in (16, 3)
    )
    assert torch.allclose(whole, parts, atol=1e-5)
    assert len(whole) == (2 if guidance in ("source", "unconditional") else 1)


def test_draws_belong_to_seed_subject_slice_and_sample():
    cdm, images = small_cdm(), volume(1).expand(2, -1, -1, -1)
    out = cdm.predict(images, GIVEN, samples=2, seed=1, subject="a")
    drawn = [out[0, 0], out[0, 1], out[1, 0]]
    drawn += [
        cdm.predict(images, GIVEN, seed=2, subject="a")[0, 0],
        cdm.predict(images, GIVEN, seed=1, subject="b")[0, 0],
    ]
    assert torch.allclose(cdm.predict(images, GIVEN, seed=1, subject="a")[0], out[0], atol=1e-5)
    for i, first in enumerate(drawn):
        assert all(not torch.allclose(first[MISSING], second[MISSING]) for second in drawn[i + 1 :])


def test_the_four_guidances_look_at_different_things():
    cdm, images, truth = small_cdm(), volume(2), volume(2, seed=9)
    truth[:, GIVEN] = images[:, GIVEN]
    out = {name: cdm.predict(images, GIVEN, guidance=name)[0] for name in ("source", "unconditional", "null")}
    out["oracle"] = cdm.predict(images, GIVEN, guidance="oracle", truth=truth)[0]
    names = list(out)
    for i, name in enumerate(names):
        assert all(not torch.allclose(out[name], out[other]) for other in names[i + 1 :])
    other = cdm.predict(images, GIVEN, guidance="oracle", truth=-truth)[0]
    assert not torch.allclose(other[:, MISSING], out["oracle"][:, MISSING])
    assert torch.equal(cdm.predict(images, GIVEN, guidance="source", truth=-truth)[0], out["source"])


def test_mrm_sees_the_middle_of_a_larger_grid():
    cdm, inner = small_cdm(), volume(1)
    larger = torch.nn.functional.pad(inner, (4, 4, 8, 8), value=-1.0)
    assert cdm.predict(larger, GIVEN).shape == (1, *larger.shape)
    marks = torch.zeros(len(STACK), dtype=torch.bool)
    marks[GIVEN] = True
    assert torch.allclose(cdm._encoded(larger, marks, 4), cdm._encoded(inner, marks, 4), atol=1e-5)


def test_passes_are_counted_and_a_job_can_be_cancelled():
    cdm, images, seen, calls = small_cdm(), volume(5), [], []
    cdm.cunet.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    cdm.predict(images, GIVEN, samples=2, batch_size=4, progress=lambda *count: seen.append(count))
    assert seen == [(4, 10), (8, 10), (10, 10)] and sum(calls) == 10 * cdm.passes()
    with pytest.raises(Cancelled):
        cdm.predict(images, GIVEN, batch_size=2, cancelled=lambda: len(seen) > 2)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"available": []}, "modalities: cdm synthesises from images that are given"),
        ({"available": [0, 6]}, "available: no such channel"),
        ({"images": volume(1, (30, 24))}, "images: cdm cannot take this shape"),
        ({"images": volume(1)[:, :5]}, "images: cdm cannot take this shape"),
        ({"guidance": "best"}, "guidance: unknown guidance"),
        ({"guidance": "oracle"}, "truth: oracle guidance needs the truth"),
    ],
)
def test_what_it_refuses(change, words):
    with pytest.raises(Any2allError, match=words):
        small_cdm().predict(**{"images": volume(1), "available": GIVEN, **change})


def test_the_released_pair_comes_back(tmp_path):
    file = saved_cdm(tmp_path)
    state = torch.load(file, weights_only=True)
    assert {name.split(".")[0] for name in state} == {"mrm", "mdn", "cunet"}
    assert {value.dtype for value in state.values()} == {torch.float16}
    cdm, card, networks = load_cdm(file, autocast=False), card_of(), networks_of(card_of())
    assert cdm.stack == card.stack and cdm.card.networks == card.networks and cdm.card.matrix == card.matrix
    assert torch.allclose(cdm.card.standardisation.mean, card.standardisation.mean, rtol=1e-5)
    for name, value in networks["cunet"].state_dict().items():
        assert torch.equal(cdm.cunet.state_dict()[name], value.half().float())
    assert torch.allclose(cdm.predict(volume(1), GIVEN), small_cdm().predict(volume(1), GIVEN), atol=0.05)


def test_what_cannot_be_loaded(tmp_path):
    file = saved_cdm(tmp_path)
    card_file = file.with_suffix(".json")
    words = card_file.read_text()

    def refused(message: str) -> None:
        with pytest.raises(Any2allError, match=message) as caught:
            load_cdm(file)
        assert caught.value.code == "cdm_unavailable" and caught.value.key == "cdm"

    card_file.write_text("{")
    refused("card of CDM cannot be read")
    document = json.loads(words)
    document["networks"]["cunet"]["widths"] = [8, 8, 8]
    card_file.write_text(json.dumps(document))
    refused("do not fit the networks")
    card_file.write_text(words.replace(document["sha256"], "0" * 64))
    refused("sha256")
    card_file.unlink()
    refused("not found; got 'cdm.json'")
    networks = networks_of(card_of())
    save_networks({stage: networks[stage] for stage in ("mrm", "mdn")}, card_of(), file)
    refused("not all networks are trained.*stage cunet")
    assert set(load_networks(file, ("mrm", "mdn"))[1]) == {"mrm", "mdn"}


def test_four_rows_in_the_comparison():
    cdm, u = small_cdm(), (volume() + 1) / 2
    peers = cdm_peers(cdm)
    assert list(peers) == ["cdm", "cdm-unconditional", "cdm-null", "cdm-oracle"]
    given = {"T1": u[:, 0], "T2FLAIR": u[:, 2]}
    for name, peer in peers.items():
        assert peer.name == name and peer.passes([], ["T1"]) == 1
        assert peer.can([], ["T1"], "CT") is (name != "cdm-oracle")
        assert not peer.can(["T2"], ["T1"], "CT") and not peer.can([], ["T1"], "T1") and not peer.can([], [], "T1")
    drawn = peers["cdm"].predict({}, given, ["CT", "PET"], samples=3, seed=5)
    assert {name: tuple(image.shape) for name, image in drawn.items()} == dict.fromkeys(("CT", "PET"), (3, 3, 32, 24))
    images = 2 * u - 1
    assert torch.allclose(2 * drawn["CT"] - 1, cdm.predict(images, GIVEN, 3, 5, "evaluation")[:, :, 4], atol=1e-5)
    with pytest.raises(Any2allError, match="cdm-oracle cannot predict"):
        peers["cdm-oracle"].predict({}, given, ["CT"])
    oracle: CDMPeer = peers["cdm-oracle"].with_truth(u)
    assert oracle.can([], ["T1"], "CT") and len(oracle.predict({}, given, ["CT"], samples=3)["CT"]) == 1
