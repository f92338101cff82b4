"""MRM: patches and masks, L_MRM by hand, and y_0 standardised."""

from __future__ import annotations

import pytest
import torch
from any2all.cdm.mrm import MRM, MaskedPatchLoss, random_mask
from any2all.cdm.standardise import Standardisation, representations
from small_cdm import MATRIX, NETWORKS, STACK, volume

M, FEATURES = len(STACK), NETWORKS["mrm"]["features"]


@pytest.fixture
def mrm() -> MRM:
    torch.manual_seed(0)
    return MRM(M, MATRIX, **NETWORKS["mrm"]).eval()


def test_patches_are_those_that_the_embedding_sees(mrm):
    x = volume()[:, :1]
    conv = mrm.embed.patch_embeddings
    with torch.no_grad():
        conv.weight.zero_()
        conv.bias.zero_()
        conv.weight[5, 0, 3, 6] = 1.0  # feature 5 reads the pixel (3, 6) of every patch
        read = (mrm.embed(x) - mrm.embed.position_embeddings)[..., 5]
    assert torch.allclose(read, mrm.patches(x)[..., 3 * 8 + 6], atol=1e-6)
    assert torch.equal(mrm.patches(x)[0, 4].view(8, 8), x[0, 0, 8:16, 8:16])  # 3 patches in a row


def test_masks_hide_the_same_number_everywhere():
    masked = random_mask(50, 12, 0.75)
    assert masked.sum(1).tolist() == [9] * 50 and len(masked.unique(dim=0)) > 20


def test_what_is_masked_is_not_seen(mrm):
    x, modality = volume(4)[:, :1], torch.tensor([0, 1, 2, 5])
    masked = random_mask(4, mrm.count, 0.75)
    prediction = mrm(x, modality, masked)
    pixels = masked.view(4, 1, 4, 3).repeat_interleave(8, 2).repeat_interleave(8, 3)
    assert torch.equal(mrm(torch.where(pixels, 0.3, x), modality, masked), prediction)
    assert not torch.allclose(mrm(torch.where(pixels, x, 0.3), modality, masked), prediction)
    assert not torch.allclose(mrm(x, modality.flip(0), masked), prediction)


def test_l_mrm_by_hand():
    patches = torch.arange(12.0).view(1, 3, 4)
    prediction = patches + torch.tensor([1.0, 2.0, 10.0])[None, :, None]
    masked = torch.tensor([[True, True, False]])
    assert float(MaskedPatchLoss()(prediction, (patches, masked))) == pytest.approx((1 + 4) / 2)


def test_the_loss_trains_every_parameter(mrm):
    x, masked = volume(2)[:, :1], random_mask(2, mrm.count, 0.75)
    MaskedPatchLoss()(mrm(x, torch.tensor([0, 3]), masked), (mrm.patches(x), masked)).backward()
    assert all(p.grad is not None for p in mrm.parameters() if p.requires_grad)  # torchrun waits for each
    assert all(p.grad.any() for p in mrm.project.parameters())  # y_0 learns through the decoder


def test_standardised_y0_has_zero_mean_and_unit_variance_in_every_modality(mrm):
    images = volume(40)
    everything = torch.ones(40, M, dtype=torch.bool)
    row, modality = everything.nonzero(as_tuple=True)
    with torch.no_grad():
        y = mrm.encode(images[row, modality][:, None], modality)
        fitted = Standardisation.fit([(y[:100], modality[:100]), (y[100:], modality[100:])], M)
        z = representations(mrm, Standardisation.from_json(fitted.to_json()), images, everything)
    assert z.shape == (40, M, FEATURES)
    assert z.mean(0).abs().max() < 1e-2 and (z.std(0, correction=0) - 1).abs().max() < 1e-2


def test_only_what_is_asked_is_encoded(mrm):
    fitted = Standardisation(torch.zeros(M, FEATURES), torch.ones(M, FEATURES))
    which = torch.zeros(3, M, dtype=torch.bool)
    which[1, 2] = which[2, 0] = True
    images = volume()
    with torch.no_grad():
        z = representations(mrm, fitted, images, which)
        alone = mrm.encode(images[1:2, 2:3], torch.tensor([2]))[0]
    assert torch.equal(z.any(-1), which) and torch.allclose(z[1, 2], alone, atol=1e-6)


def test_a_modality_without_images_is_left_as_it_is():
    y, modality = torch.randn(10, 4), torch.tensor([0] * 10)
    fitted = Standardisation.fit([(y, modality)], 2)
    assert torch.equal(fitted.apply(y, torch.ones(10, dtype=torch.long)), y)
