"""Peers: one interface, what they refuse, what they cost, and the copy with matched histogram."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from any2all.errors import Any2allError
from any2all.evaluation.matched_copy import MonotoneMap
from any2all.evaluation.peers import (
    LAMDAS,
    L1Wavelet,
    MatchedCopy,
    MeanImage,
    SampledPeer,
    Sense,
    TotalVariation,
    ZeroFilled,
    tune_lamda,
    tuned_reconstructions,
)
from any2all.kspace.reconstruct import l1_wavelet, real_l1_wavelet, sense, total_variation, zero_filled
from any2all.kspace.simulate import simulate_kspace
from any2all.physics.measurements import Channel, Measurements
from any2all.samplers import MCS, MDS, MPS, Problem
from any2all.samplers.noise import VolumeNoise
from any2all.stack import load_stack
from skimage.exposure import match_histograms

STACK = load_stack()
SHAPE = (2, 32, 32)


def disc(slices=2, size=32, seed=0):
    """Smooth texture (slices, size, size) in (0.2, 0.8) inside a disc, and the disc."""
    h, w = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    phases = torch.rand(slices, 2, 1, 1, generator=torch.Generator().manual_seed(seed)) * 6
    texture = 0.5 + 0.15 * torch.sin(6 * h + phases[:, 0]) + 0.14 * torch.sin(5 * w + phases[:, 1])
    inside = ((h**2 + w**2) < 0.7).expand(slices, size, size)
    return texture * inside, inside


def given():
    """k-space of T2FLAIR and images of T1 and T2, in u."""
    image = disc()[0]
    return {"T2FLAIR": simulate_kspace(image.numpy(), seed=3)}, {"T1": image, "T2": 0.8 * image}


def training(slices=8, seed=1):
    """Stacks (N, M, H, W) in which T2 is T1 inverted and CT follows T2 but not T1; PET is flat."""
    t1, inside = disc(slices, seed=seed)
    other = disc(slices, seed=seed + 100)[0]
    channels = {"T1": t1, "T2": (1 - t1) * inside, "T2FLAIR": other, "T2star": other**2, "PET": 0.5 * inside}
    channels["CT"] = 0.3 + 0.5 * channels["T2"] ** 2
    return torch.stack([channels[name] * inside for name in STACK.names], dim=1)


def counting(prior, monkeypatch):
    """Make a prior count rows that pass and vector–Jacobian products; the counts are in the list that is returned."""
    count, original = [0], prior.x0_hat

    def add(rows):
        count[0] += rows

    def x0_hat(x, levels):
        add(len(x))
        result = original(x, levels)
        if result.requires_grad:
            result.register_hook(lambda gradient: add(len(gradient)))
        return result

    monkeypatch.setattr(prior, "x0_hat", x0_hat)
    return count


CLASSICAL = [
    (ZeroFilled(), zero_filled),
    (Sense(), sense),
    (Sense(0.01), lambda a: sense(a, 0.01)),
    (L1Wavelet(0.002), lambda a: l1_wavelet(a, 0.002)),
    (L1Wavelet(real=True), real_l1_wavelet),
    (TotalVariation(), total_variation),
]


@pytest.mark.parametrize("peer, reconstruct", CLASSICAL, ids=lambda p: getattr(p, "name", ""))
def test_a_reconstruction_takes_each_target_from_its_own_kspace(peer, reconstruct):
    measured, images = given()
    found = peer.predict(measured, images, ["T2FLAIR"], samples=4, seed=5)
    assert list(found) == ["T2FLAIR"] and found["T2FLAIR"].shape == (1, *SHAPE)
    # SigPy estimates its step size from random numbers
    np.testing.assert_allclose(found["T2FLAIR"][0].numpy(), reconstruct(measured["T2FLAIR"]), atol=2e-3)
    assert peer.capabilities.kspace and not peer.capabilities.mixed and peer.passes(measured, images) == 0
    assert not peer.can(measured, images, "CT")
    with pytest.raises(Any2allError, match=f"{peer.name} cannot predict this; got 'CT'"):
        peer.predict(measured, images, ["T2FLAIR", "CT"])


@pytest.mark.parametrize("kind", ["rendered", "real"])
def test_tuned_reconstructions_have_the_names_of_the_tables(kind):
    peers = tuned_reconstructions(kind)
    assert list(peers) == ["zero_filled", "SENSE", "L1_wavelet", "L1_wavelet_real", "TV"]
    assert all(peers[name].name == name and peers[name].lamda == lamda for name, lamda in LAMDAS[kind].items())
    assert peers["L1_wavelet_real"].real and not peers["L1_wavelet"].real


def test_the_mean_image_stands_in_for_what_was_not_acquired():
    mean = np.random.default_rng(0).random((len(STACK), 32, 32)).astype(np.float32)
    peer, (measured, images) = MeanImage(mean, STACK), given()
    found = peer.predict(measured, {}, ["CT", "PET"])
    for name in ("CT", "PET"):
        assert found[name].shape == (1, *SHAPE)
        np.testing.assert_array_equal(found[name][0, 1], mean[STACK.index(name)])
    answers = [peer.can(measured, images, name) for name in ("CT", "T1", "T2FLAIR", "MRA")]
    assert answers == [True, False, False, False] and not peer.can((), (), "CT")
    with pytest.raises(Any2allError, match="another matrix"):
        MeanImage(mean[:, :16], STACK).predict(measured, images, ["CT"])


def test_a_matched_copy_is_histogram_matching():
    """Against scikit-image on values without ties; the decreasing map is the increasing one of the negative."""
    rng = np.random.default_rng(0)
    image, reference = rng.random(SHAPE).astype(np.float32), (rng.random(SHAPE) ** 1.5).astype(np.float32)
    everywhere = np.ones(SHAPE, bool)
    quantiles = np.quantile(reference, np.linspace(0, 1, 1025))
    matched = MonotoneMap(quantiles, increasing=True).apply(image, everywhere)
    inverted = MonotoneMap(quantiles, increasing=False).apply(image, everywhere)
    # 2,048 values lie about 5e-4 apart, and scikit-image takes the upper end of each rank
    np.testing.assert_allclose(matched, match_histograms(image, reference), atol=5e-3)
    np.testing.assert_allclose(inverted, match_histograms(-image, reference), atol=5e-3)


def test_equal_values_stay_equal_and_air_stays_air():
    image = np.repeat(np.array([0.0, 0.4, 0.4, 0.8], np.float32), 8).reshape(1, 4, 8)
    copy = MonotoneMap(np.linspace(0, 1, 1025), increasing=False).apply(image, image > 0)
    assert (copy[0, 0] == 0).all()
    np.testing.assert_allclose(copy[0, 1:3], 2 / 3, atol=1e-6)  # 16 of 24: mid-rank 1/3, inverted
    np.testing.assert_allclose(copy[0, 3], 1 / 6, atol=1e-6)


def test_the_copy_learns_inversion_and_the_nearest_contrast():
    peer, new = MatchedCopy(training(), STACK), training(2, seed=7)
    image = {name: new[:, m] for m, name in enumerate(STACK.names)}
    assert not peer.maps["T1", "T2"].increasing and not peer.maps["T2", "T1"].increasing
    assert peer.maps["T2", "CT"].increasing and peer.maps["T2FLAIR", "T2star"].increasing
    assert peer.source_of(("T1", "T2FLAIR"), "T2star") == "T2FLAIR"
    found = peer.predict({}, {"T1": image["T1"], "T2FLAIR": image["T2FLAIR"]}, ["T2", "T2star"])
    for name in ("T2", "T2star"):
        assert found[name].shape == (1, *SHAPE)
        error = (found[name][0] - image[name]).square().mean().sqrt()
        print(f"{name}: rms error {error:.3f}, spread of the head {image[name][image[name] > 0].std():.3f}")
        assert error < 0.03
        assert (found[name][0][image["T1"] == 0] == 0).all()


def test_the_copy_refuses_what_it_never_saw_together():
    present = torch.ones(8, len(STACK), dtype=torch.bool)
    present[:, STACK.index("CT")] = False
    peer = MatchedCopy(training(), STACK, present)
    assert peer.can((), ["T1"], "T2") and not peer.can((), ["T1"], "CT")
    assert not peer.can(["T2"], ["T1"], "T2") and not peer.can(["T2"], (), "T1")
    with pytest.raises(Any2allError, match="no training slice"):
        MatchedCopy(training(), STACK, torch.zeros(8, len(STACK), dtype=torch.bool))


def test_a_sampled_peer_is_its_sampler(tiny_prior):
    measured, images = given()
    peer = SampledPeer("mcs", tiny_prior, MCS(5, consistency="calibrated"), batch_size=3, rho=0.5)
    found = peer.predict(measured, images, ["T2FLAIR", "CT"], samples=2, seed=4)
    channels = {
        "T1": Channel.available(images["T1"]),
        "T2": Channel.available(images["T2"]),
        "T2FLAIR": measured["T2FLAIR"].channel(),
    }
    given_channels = Measurements(tuple(channels.get(name, Channel.missing()) for name in STACK.names))
    noise = VolumeNoise((len(STACK), 32, 32), 4, "evaluation", 0.5)
    x = MCS(5, consistency="calibrated").sample(
        tiny_prior, Problem.of(given_channels, (2, len(STACK), 32, 32)), noise, 2, 3
    )
    for name in ("T2FLAIR", "CT"):
        assert found[name].shape == (2, *SHAPE)
        torch.testing.assert_close(found[name], (x[:, :, STACK.index(name)] + 1) / 2, rtol=0, atol=0)
    assert not torch.equal(found["CT"], peer.predict(measured, images, ["CT"], 2, seed=5)["CT"])


def test_one_pass_draws_no_samples(tiny_prior):
    peer = SampledPeer("mcs-1", tiny_prior, MCS(1))
    assert not peer.capabilities.samples and not peer.capabilities.unconditional
    assert peer.predict({}, given()[1], ["CT"], samples=4)["CT"].shape == (1, *SHAPE)


def test_what_samplers_can(tiny_prior, monkeypatch):
    cells = [(("T2FLAIR",), ("T1",)), (("T2FLAIR",), ()), ((), ("T1",)), ((), ())]

    def answers(sampler, target="CT"):
        return [SampledPeer("s", tiny_prior, sampler).can(*cell, target) for cell in cells]

    assert answers(MDS(3)) == answers(MPS(3)) == answers(MCS(5)) == [True, True, True, False]
    assert answers(MCS(4)) == [False, False, True, False]
    assert answers(MDS(3), "T1") == [False, True, False, False] and answers(MDS(3), "MRA") == [False] * 4
    monkeypatch.setattr(tiny_prior, "noise_levels", "shared")
    assert answers(MCS(5)) == [False] * 4 and answers(MDS(3)) == [True, True, True, False]


def test_kspace_on_another_grid_is_refused(tiny_prior):
    measured, images = given()
    with pytest.raises(Any2allError, match="one grid"):
        SampledPeer("mds", tiny_prior, MDS(2)).predict(measured, {"T1": images["T1"][:1]}, ["CT"])


@pytest.mark.parametrize("sampler", [
    MPS(3), MDS(3), MCS(1), MCS(6), MCS(6, consistency="calibrated"), MCS(7, solver="dpm"), MCS(6, refill=False),
], ids=["mps", "mds", "mcs-1", "mcs-moment", "mcs-calibrated", "mcs-dpm", "mcs-no-refill"])  # fmt: skip
def test_the_cost_is_what_is_spent(sampler, tiny_prior, monkeypatch):
    """Passes and vector–Jacobian products of two samples of one slice, counted as they happen."""
    measured, images = given()
    raw = {"T2FLAIR": measured["T2FLAIR"].select([0])}
    everything = {name: images["T1"][:1] for name in STACK.names if name != "T2FLAIR"}
    peer, count = SampledPeer("s", tiny_prior, sampler), counting(tiny_prior, monkeypatch)
    tasks = [({}, {"T1": images["T1"][:1]}), (raw, {}), (raw, {"T1": images["T1"][:1]}), (raw, everything)]
    tried = [(m, a) for m, a in tasks if peer.can(m, a, "T2FLAIR")]
    assert len(tried) == (1 if sampler.name == "mcs" and sampler.steps < 5 else 4)
    for m, a in tried:
        count[0] = 0
        samples = len(peer.predict(m, a, ["T2FLAIR"], samples=2)["T2FLAIR"])
        assert count[0] == samples * peer.passes(m, a, ["T2FLAIR"])


def test_refilling_and_products_are_in_the_cost(tiny_prior):
    raw, others = ["T2FLAIR"], [name for name in STACK.names if name != "T2FLAIR"]
    calibrated = SampledPeer("c", tiny_prior, MCS(10, consistency="calibrated"))
    moment = SampledPeer("m", tiny_prior, MCS(10, consistency="moment"))
    assert [calibrated.passes(raw, others), calibrated.passes(raw, ["T1"]), calibrated.passes([], others)] == [
        10,
        20,
        10,
    ]
    assert moment.passes([], ["T1"]) == 10 and 10 + 10 < moment.passes(raw, others) < 10 + 20
    assert moment.passes(raw, ["T1"]) == moment.passes(raw, others) + 10
    assert moment.passes(raw, ["T1"], raw) == moment.passes(raw, others)


def test_a_weight_is_tuned():
    truth = disc()[0].numpy()
    best, scores = tune_lamda(lambda _, lamda: truth + (lamda - 0.3), None, truth, (0.1, 0.2, 0.35))
    assert best == 0.35 and list(scores) == [0.1, 0.2, 0.35]
    over, _ = tune_lamda(lambda _, lamda: np.where(truth > 0, truth, -lamda), None, truth, (9.0, 1.0))
    assert over == 9.0  # clipped: both are perfect, the first stays
    acquisition = given()[0]["T2FLAIR"]
    best, scores = tune_lamda(total_variation, acquisition, truth, (1e-5, 1e-3, 1e-1))
    assert best == 1e-3 and scores[1e-3] > scores[1e-1] + 6
