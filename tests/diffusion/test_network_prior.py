"""The trained prior: network, file and card."""

from __future__ import annotations

import json

import pytest
import torch
from any2all.diffusion.calibration import Calibration, companion_sets, measure_calibration
from any2all.diffusion.prior import (
    NetworkPrior,
    PriorCard,
    build_network,
    default_error_variance,
    load_prior,
    save_prior,
    x0_from_prediction,
)
from any2all.diffusion.schedule import cosine_schedule
from any2all.errors import Any2allError
from any2all.stack import load_stack

NETWORK = {
    "channels": [8, 8],
    "num_res_blocks": [1, 1],
    "attention_levels": [False, False],
    "num_head_channels": 8,
    "norm_num_groups": 4,
}


def card(**changes) -> PriorCard:
    stack = load_stack()
    settings = dict(
        version="1", noise_levels="per_modality", prediction="v", network=NETWORK,
        matrix=(16, 16), spacing_mm=(3.0, 3.0, 5.0), stack=stack, training={"minutes": 1.5},
        calibration=Calibration((1, 1000), {"": {name: (0.01, 0.3) for name in stack.names}}),
    )  # fmt: skip
    return PriorCard(**{**settings, **changes})


def random_network(settings=NETWORK) -> torch.nn.Module:
    torch.manual_seed(0)
    network = build_network(load_stack(), settings)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network


def test_levels_default_to_pure_noise_and_matter():
    network, x = random_network(), torch.randn(2, 6, 16, 16)
    top = torch.full((2, 6), 1000)
    assert network.multiple == 2
    torch.testing.assert_close(network(x), network(x, top))
    one_clean = top.clone()
    one_clean[:, 2] = 0
    assert not torch.allclose(network(x, one_clean), network(x, top))


def test_unscaled_inputs_reach_the_network_as_they_are():
    """eps-prediction needs to see the noise, which a scaled input hides at k = 1000."""
    x = torch.randn(1, 6, 16, 16)
    scaled, plain = random_network(), random_network({**NETWORK, "scale_input": False})
    torch.testing.assert_close(scaled(x), scaled(2 * x), atol=1e-3, rtol=0)
    assert not torch.allclose(plain(x), plain(2 * x), atol=1e-2)


def test_a_saved_prior_predicts_the_same_after_loading(tmp_path):
    network, model_file = random_network(), tmp_path / "model.pt"
    save_prior(network, card(), model_file)
    state = torch.load(model_file, weights_only=True)
    assert {v.dtype for v in state.values()} == {torch.float16}

    loaded = load_prior(model_file, autocast=False)
    rounded = NetworkPrior(random_network().half().float(), card(), autocast=False)
    x, levels = torch.randn(2, 6, 16, 16), torch.tensor([[0, 0, 500, 500, 1000, 7]] * 2)
    torch.testing.assert_close(loaded.x0_hat(x, levels), rounded.x0_hat(x, levels))
    assert (tmp_path / "prior.json").is_file()
    assert loaded.card.to_json() == {**card().to_json(), "sha256": loaded.card.sha256}
    assert loaded.stack == load_stack() and loaded.channels == 6
    assert loaded.error_variance(4, frozenset({0}), 1000) == pytest.approx(0.3)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_prior_in_either_form_predicts_what_its_network_does(tmp_path, bits):
    network, model_file = random_network(), tmp_path / "model.pt"
    save_prior(network, card(), model_file, bits)
    loaded, exact = load_prior(model_file, autocast=False), NetworkPrior(random_network(), card(), autocast=False)
    x, levels = torch.randn(2, 6, 16, 16), torch.tensor([[0, 0, 500, 500, 1000, 7]] * 2)
    error = (loaded.x0_hat(x, levels) - exact.x0_hat(x, levels)).square().mean().sqrt()
    assert 0 < float(error) < (0.02 if bits == 8 else 0.002) * float(exact.x0_hat(x, levels).std())


def test_eight_bits_halve_the_file(tmp_path):
    network = random_network({"channels": [32, 64], "num_res_blocks": [1, 1], "attention_levels": [False, False],
                              "num_head_channels": 8, "norm_num_groups": 4})  # fmt: skip
    for bits in (8, 16):
        save_prior(network, card(), tmp_path / f"{bits}.pt", bits)
    assert (tmp_path / "8.pt").stat().st_size < 0.6 * (tmp_path / "16.pt").stat().st_size


def test_x0_hat_keeps_a_clean_channel_and_lets_gradients_through(tmp_path):
    prior = NetworkPrior(random_network(), card(), autocast=False)
    x = torch.randn(1, 6, 16, 16, requires_grad=True)
    x0_hat = prior.x0_hat(x, torch.tensor([[0, 600, 600, 600, 600, 600]]))
    torch.testing.assert_close(x0_hat[:, 0], x[:, 0])
    (gradient,) = torch.autograd.grad(x0_hat[:, 4].sum(), x)
    assert float(gradient[:, 0].abs().max()) > 0


def test_noise_of_slices_is_as_alike_as_the_card_says_at_any_distance():
    said = card(slice_correlation={"CT": 0.5})
    assert said.noise_correlation() == pytest.approx((0.6, 0.6, 0.6, 0.6, 0.5, 0.6))
    assert said.noise_correlation(10.0)[4] == pytest.approx(0.25)  # twice the prior's 5 mm
    assert PriorCard.from_json(said.to_json()).slice_correlation == {"CT": 0.5}


def test_the_network_that_states_means_is_the_one_that_the_card_names(tmp_path):
    other = card(training={"objective": "masked regression"})
    save_prior(random_network(), other, tmp_path / "regression.pt")
    named = {"file": "regression.pt", "sha256": other.sha256}
    save_prior(random_network(), card(mean_network=named), tmp_path / "model.pt")
    assert load_prior(tmp_path / "model.pt").mean_network.card.training == {"objective": "masked regression"}
    assert load_prior(tmp_path / "regression.pt").mean_network is None

    for changed in (card(training={"minutes": 2}), card(matrix=(32, 32))):
        network = random_network()
        if changed.matrix == (16, 16):
            torch.nn.init.zeros_(next(network.parameters()))
        save_prior(network, changed, tmp_path / "regression.pt")
        with pytest.raises(Any2allError, match="not the network that the prior's card names.*regression.pt"):
            _ = load_prior(tmp_path / "model.pt").mean_network
    (tmp_path / "regression.pt").unlink()
    with pytest.raises(Any2allError, match="not found.*regression.pt"):
        _ = load_prior(tmp_path / "model.pt").mean_network


def test_a_prior_that_is_broken_off_while_it_is_written_leaves_the_earlier_one(tmp_path, monkeypatch):
    network = build_network(load_stack(), NETWORK)
    save_prior(network, card(), tmp_path / "model.pt")
    before = load_prior(tmp_path / "model.pt").card.sha256

    def half(state, file):
        with open(file, "wb") as stream:
            stream.write(b"PK half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(KeyboardInterrupt):
        save_prior(network, card(), tmp_path / "model.pt")
    assert load_prior(tmp_path / "model.pt").card.sha256 == before


def test_damaged_or_foreign_files_are_refused_in_words(tmp_path):
    model_file = tmp_path / "model.pt"
    with pytest.raises(Any2allError, match="prior file not found.*model.pt"):
        load_prior(model_file)

    save_prior(random_network(), card(), model_file)
    document = json.loads((tmp_path / "prior.json").read_text())
    (tmp_path / "prior.json").write_text(json.dumps({**document, "sha256": "0" * 64}))
    with pytest.raises(Any2allError, match="do not match their card"):
        load_prior(model_file)

    for contrast in ([], {"guide": "T1"}, {"guide": "T1", "levels": [1, 2], "covariance": {"T1": ["1 2 3"]}}):
        (tmp_path / "prior.json").write_text(json.dumps({**document, "contrast": contrast or ["nothing"]}))
        with pytest.raises(Any2allError, match="card cannot be read.*prior.json"):
            load_prior(model_file)

    (tmp_path / "prior.json").write_text(json.dumps({k: v for k, v in document.items() if k != "stack"}))
    with pytest.raises(Any2allError, match="card cannot be read.*prior.json"):
        load_prior(model_file)


@pytest.mark.parametrize("network", [{**NETWORK, "channels": [16, 16]}, {**NETWORK, "colour": 3}])
def test_weights_of_another_network_are_refused(tmp_path, network):
    save_prior(random_network(), card(network=network), tmp_path / "other.pt")
    with pytest.raises(Any2allError, match="do not fit the network") as refusal:
        load_prior(tmp_path / "other.pt")
    assert refusal.value.code == "prior_unavailable"


@pytest.mark.parametrize("device", ["foo", "cuda:99", "meta", None])
def test_a_device_that_is_not_there_is_refused(tmp_path, device):
    save_prior(random_network(), card(), tmp_path / "model.pt")
    with pytest.raises(Any2allError, match="device: this device cannot be used; got .*allowed: cpu") as refusal:
        load_prior(tmp_path / "model.pt", device)
    assert refusal.value.value == str(device) and "\n" not in str(refusal.value)


def test_a_file_with_code_in_it_is_refused(tmp_path):
    save_prior(random_network(), card(), tmp_path / "model.pt")
    torch.save({"a": Payload()}, tmp_path / "model.pt")
    document = json.loads((tmp_path / "prior.json").read_text())
    (tmp_path / "prior.json").write_text(json.dumps({**document, "sha256": None}))
    with pytest.raises(Any2allError, match="do not fit"):
        load_prior(tmp_path / "model.pt")


class Payload:
    """An object that plain weights do not hold."""


@pytest.mark.parametrize("kind", ["eps", "v"])
def test_the_true_target_gives_the_true_image(kind):
    schedule, generator = cosine_schedule(), torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 3, 4, 8, 8, dtype=torch.float64, generator=generator)
    levels = torch.tensor([[1, 300, 700, 950]] * 3)
    signal, noise = schedule.planes(levels, torch.float64)
    target = eps if kind == "eps" else signal * eps - noise * x0
    x_k = schedule.add_noise(x0, eps, levels)
    torch.testing.assert_close(x0_from_prediction(target, x_k, levels, schedule, kind), x0)


def test_calibration_interpolates_in_log_and_falls_back_on_fewer_companions():
    rows = {"": {"CT": (0.01, 0.04, 0.4)}, "T1": {"CT": (0.005, 0.02, 0.2)}}
    calibration = Calibration((1, 501, 1000), rows)
    assert calibration.error_variance("CT", frozenset(), 501) == pytest.approx(0.04)
    assert calibration.error_variance("CT", frozenset(), 251) == pytest.approx(0.02)  # half way: geometric mean
    assert calibration.error_variance("CT", frozenset(), 1000) == pytest.approx(0.4)
    assert calibration.error_variance("CT", frozenset(), 0) == pytest.approx(0.01)
    assert calibration.error_variance("CT", frozenset({"T1"}), 501) == pytest.approx(0.02)
    assert calibration.error_variance("CT", frozenset({"T1", "T2"}), 501) == pytest.approx(0.02)
    with pytest.raises(KeyError, match="no calibration for PET"):
        calibration.error_variance("PET", frozenset(), 501)
    assert Calibration.from_json(json.loads(json.dumps(calibration.to_json()))) == calibration


def test_an_uncalibrated_prior_uses_the_formula():
    prior = NetworkPrior(random_network(), card(calibration=None), autocast=False)
    assert prior.error_variance(0, frozenset(), 1000) == pytest.approx(0.25, rel=1e-4)
    assert prior.error_variance(0, frozenset(), 1) == default_error_variance(prior.schedule, 1) < 1e-4


def test_measured_calibration_is_the_error_of_the_prior():
    class Blank(torch.nn.Module):
        """Predicts v = 0: x0_hat = sqrt(abar) x_k = abar x_0 + sqrt(abar (1 - abar)) eps."""

        def forward(self, x, levels):
            return torch.zeros_like(x)

    prior = NetworkPrior(Blank(), card(), autocast=False)
    slices = 0.2 * torch.randn(4, 6, 32, 32, generator=torch.Generator().manual_seed(1))
    measured = measure_calibration(prior, slices, levels=(100, 800), sets=[(), (0, 4)])
    assert set(measured.table) == {"", "CT+T1"} and set(measured.table["CT+T1"]) == {"T2", "T2FLAIR", "T2star", "PET"}
    for i, level in enumerate(measured.levels):
        abar = prior.schedule.at(level)
        expected = 0.04 * (1 - abar) ** 2 + abar * (1 - abar)
        assert measured.table[""]["T2"][i] == pytest.approx(expected, rel=0.1)


def test_companion_sets_are_all_proper_subsets():
    assert len(list(companion_sets(6))) == 63 and () in companion_sets(6)
