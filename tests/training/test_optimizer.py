"""Muon for hidden weights, AdamW for the rest: which parameters are whose, what a step does, how states come back."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from any2all.diffusion.network import LevelConditionedUNet
from any2all.training.optimizer import MuonAdamW, as_matrix, hidden_weights
from small_runs import SMALL


def network(memory_format: torch.memory_format = torch.contiguous_format) -> LevelConditionedUNet:
    torch.manual_seed(0)
    return LevelConditionedUNet(2, **SMALL["network"]).to(memory_format=memory_format)


def fill_gradients(net: torch.nn.Module, seed: int) -> None:
    noise = torch.Generator().manual_seed(seed)
    for weight in net.parameters():
        weight.grad = torch.randn(weight.shape, generator=noise)


def test_muon_has_the_weights_between_features_and_adamw_the_rest():
    net = network()
    optimizer = MuonAdamW(net, 0.01)
    names = {id(weight): name for name, weight in net.named_parameters()}
    muons, adams = ([names[id(weight)] for weight in group["params"]] for group in optimizer.param_groups)
    assert sorted(muons + adams) == sorted(names.values())
    matrices_of_adam = {name for name in adams if dict(net.named_parameters())[name].ndim > 1}
    assert matrices_of_adam == {
        "unet.conv_in.conv.weight",
        "unet.out.2.conv.weight",
        "unet.time_embed.0.weight",
        "unet.time_embed.2.weight",
    }


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_step_of_a_convolution_is_orthogonal_and_as_large_as_adamws(memory_format):
    net = network(memory_format)
    before = {weight: weight.detach().clone() for weight in hidden_weights(net)}
    fill_gradients(net, 1)
    MuonAdamW(net, lr=0.01, weight_decay=0.0).step()
    for weight, old in before.items():
        step = (old - weight.detach()).flatten(1) / (0.01 * 0.2 * max(weight.flatten(1).shape) ** 0.5)
        left, _, right = torch.linalg.svd(weight.grad.flatten(1), full_matrices=False)
        direction = left @ right
        assert torch.nn.functional.cosine_similarity(step.flatten(), direction.flatten(), dim=0) > 0.95
        assert 0.7 < step.norm() / direction.norm() < 1.3  # Muon's polynomial leaves singular values near one


def test_the_layout_in_memory_does_not_matter():
    ends = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        net = network(memory_format)
        optimizer = MuonAdamW(net, 0.01)
        for seed in range(3):
            fill_gradients(net, seed)
            optimizer.step()
        ends.append([weight.detach() for weight in net.parameters()])
    for one, other in zip(*ends):
        assert torch.allclose(one, other, atol=2e-3)  # Muon multiplies in bf16


def test_a_schedule_moves_the_rate_of_both():
    net = network()
    optimizer = MuonAdamW(net, 0.01)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = [weight.detach().clone() for weight in net.parameters()]
    fill_gradients(net, 0)
    optimizer.step()
    assert all(torch.equal(old, new) for old, new in zip(before, net.parameters()))


def test_a_loaded_state_goes_on_as_the_old_one():
    net, twin = network(), network()
    first = MuonAdamW(net, 0.01)
    fill_gradients(net, 0)
    first.step()
    twin.load_state_dict(net.state_dict())
    second = MuonAdamW(twin, 0.01)
    second.load_state_dict(deepcopy(first.state_dict()))
    for optimizer, model in ((first, net), (second, twin)):
        fill_gradients(model, 1)
        optimizer.step()
    assert all(torch.equal(one, other) for one, other in zip(net.parameters(), twin.parameters()))


def test_parameters_without_a_gradient_stay():
    net = network()
    before = [weight.detach().clone() for weight in net.parameters()]
    MuonAdamW(net, 0.01).step()
    assert all(torch.equal(old, new) for old, new in zip(before, net.parameters()))


def test_a_convolution_seen_as_a_matrix_is_the_same_memory():
    for memory_format in (torch.contiguous_format, torch.channels_last):
        weight = torch.randn(8, 4, 3, 3).to(memory_format=memory_format)
        assert as_matrix(weight, weight).data_ptr() == weight.data_ptr()
