"""C-UNet: what it may look at, where the null token stands, and L_Syn by hand."""

from __future__ import annotations

import pytest
import torch
from any2all.cdm.batches import FrozenEncoder, GuidedImages
from any2all.cdm.cunet import CUNet, SynthesisLoss
from small_cdm import NETWORKS, STACK, card_of, networks_of, volume

M, FEATURES = len(STACK), NETWORKS["mrm"]["features"]
AVAILABLE = torch.tensor([[True, False, True, False, False, False]])


@pytest.fixture
def cunet() -> CUNet:
    torch.manual_seed(0)
    network = CUNet(M, FEATURES, **NETWORKS["cunet"]).eval().requires_grad_(False)
    return network


def vectors(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, M, FEATURES, generator=torch.Generator().manual_seed(seed))


def test_the_content_of_a_missing_channel_cannot_leak(cunet):
    images, available, guidance = volume(2), AVAILABLE.expand(2, M), vectors(2)
    out = cunet(images, available, guidance, ~available)
    other = torch.where(available[..., None, None], images, torch.nan)
    assert out.shape == images.shape and torch.equal(cunet(other, available, guidance, ~available), out)
    shown = torch.where(available[..., None, None], images + 0.1, images)
    assert not torch.allclose(cunet(shown, available, guidance, ~available), out)


def test_an_empty_image_is_not_a_missing_one(cunet):
    images = torch.zeros_like(volume(1))
    everything = torch.ones(1, M, dtype=torch.bool)
    nothing = ~everything
    assert not torch.allclose(
        cunet(images, everything, vectors(1), nothing), cunet(images, AVAILABLE, vectors(1), nothing)
    )


def test_the_null_token_stands_where_a_modality_is_available(cunet):
    images, everywhere = volume(1), torch.ones(1, M, dtype=torch.bool)
    guidance = vectors(1)
    out = cunet(images, AVAILABLE, guidance, everywhere)
    of_available = torch.where(AVAILABLE[..., None], guidance + 1, guidance)
    of_missing = torch.where(AVAILABLE[..., None], guidance, guidance + 1)
    assert torch.equal(cunet(images, AVAILABLE, of_available, everywhere), out)
    assert not torch.allclose(cunet(images, AVAILABLE, of_missing, everywhere), out)
    cunet.null_token[0] += 1.0  # of an available modality
    moved = cunet(images, AVAILABLE, guidance, everywhere)
    assert not torch.allclose(moved, out)
    cunet.null_token[1] += 1.0  # of a guided one
    assert torch.equal(cunet(images, AVAILABLE, guidance, everywhere), moved)
    assert not torch.allclose(cunet(images, AVAILABLE, guidance, ~everywhere), moved)


def test_it_takes_other_grids(cunet):
    images = volume(1, (48, 20))
    assert cunet(images, AVAILABLE, vectors(1), ~AVAILABLE).shape == images.shape


def test_l_syn_by_hand():
    images = torch.zeros(1, 3, 2, 2)
    prediction = torch.tensor([0.3, 0.5, 100.0]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    available, present = torch.tensor([[True, False, False]]), torch.tensor([[True, True, False]])
    loss = SynthesisLoss()(prediction, (images, available, present))
    assert float(loss) == pytest.approx(0.5 + 0.1 * 0.3)


def test_batches_offer_only_what_a_subject_has_and_guide_in_three_ways():
    card = card_of()
    networks = networks_of(card)
    prepare = GuidedImages(FrozenEncoder(networks["mrm"], card.standardisation), networks["mdn"], steps=2)
    present = torch.ones(300, M, dtype=torch.bool)
    present[::2, 4:] = False
    torch.manual_seed(0)
    images = volume(300) * present[..., None, None]
    x, (_, available, there), (offered, guidance, guided), _ = prepare({"image": images, "present": present})
    assert torch.equal(x, images) and torch.equal(available, offered) and torch.equal(there, present)
    assert not (available & ~present).any() and available.any(1).all() and not (guided & available).any()
    truth = prepare.encoder(images, present)
    encoded = guided & torch.isclose(guidance, truth, atol=1e-2, rtol=1e-2).all(-1)
    drawn = guided & ~encoded
    assert not (encoded & ~present).any() and (drawn & ~present).any()  # MDN draws what a subject has not, too
    kinds = [float(mark.any(1).double().mean()) for mark in (encoded, drawn, ~guided.any(1, keepdim=True))]
    assert kinds == pytest.approx([0.425, 0.425, 0.15], abs=0.08)
