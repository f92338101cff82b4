r"""MRM, the modality-specific representation model: a masked autoencoder whose encoder gives y_0.

    L_MRM = mean over masked patches of ||p_r - p̂_r||²        (CDM; here per pixel of a patch)

One vision transformer serves all modalities and is told which one it sees by a learned token. The decoder sees y_0 as
one more token, so that L_MRM trains the projection that y_0 comes from (our decision; the paper does not say).
"""

from __future__ import annotations

import torch
from monai.networks.blocks import PatchEmbeddingBlock, TransformerBlock
from torch import Tensor, nn

FEATURES = 128
PATCH = 8


class MRM(nn.Module):
    """Masked autoencoder of single images (B, 1, H, W) in the prior range, all of one matrix.

    Args:
        modalities: M, how many modality tokens there are.
        matrix: (H, W), divisible by ``patch``.
        patch: side of a patch in pixels.
        width, depth, heads: of the encoder.
        decoder_width, decoder_depth, decoder_heads: of the decoder.
        features: length of y_0.
    """

    def __init__(
        self,
        modalities: int,
        matrix: tuple[int, int],
        patch: int = PATCH,
        width: int = 192,
        depth: int = 4,
        heads: int = 3,
        decoder_width: int = 96,
        decoder_depth: int = 2,
        decoder_heads: int = 3,
        features: int = FEATURES,
    ) -> None:
        super().__init__()
        self.patch, self.features, self.matrix = patch, features, tuple(matrix)
        self.count = (matrix[0] // patch) * (matrix[1] // patch)
        self.embed = PatchEmbeddingBlock(
            1, tuple(matrix), patch, width, heads, pos_embed_type="learnable", spatial_dims=2
        )
        self.modality_token = nn.Parameter(0.02 * torch.randn(modalities, width))
        self.encoder = nn.ModuleList(_block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, features)
        self.to_decoder = nn.Linear(width, decoder_width)
        self.y_token = nn.Linear(features, decoder_width)
        self.mask_token = nn.Parameter(0.02 * torch.randn(decoder_width))
        self.decoder_position = nn.Parameter(0.02 * torch.randn(self.count, decoder_width))
        self.decoder_modality = nn.Parameter(0.02 * torch.randn(modalities, decoder_width))
        self.decoder = nn.ModuleList(_block(decoder_width, decoder_heads) for _ in range(decoder_depth))
        self.decoder_norm = nn.LayerNorm(decoder_width)
        self.to_pixels = nn.Linear(decoder_width, patch**2)

    def encode(self, x: Tensor, modality: Tensor) -> Tensor:
        """y_0 (B, features) of whole images x (B, 1, H, W) of modalities (B,); not standardised."""
        return self._representation(self._encoded(self.embed(x), modality))

    def forward(self, x: Tensor, modality: Tensor, masked: Tensor) -> Tensor:
        """Predicted patches (B, N, patch²) of images whose ``masked`` (B, N) bool patches the encoder does not see.

        Every row must mask the same number of patches, see `random_mask`.
        """
        batch, width = len(x), self.modality_token.shape[1]
        visible = (~masked).nonzero(as_tuple=True)[1].view(batch, -1)
        seen = self.embed(x).gather(1, visible[..., None].expand(-1, -1, width))
        encoded = self._encoded(seen, modality)
        tokens = self.to_decoder(encoded)
        places = visible[..., None].expand(-1, -1, tokens.shape[2])
        canvas = self.mask_token.to(tokens.dtype).expand(batch, self.count, -1).scatter(1, places, tokens)
        canvas = canvas + self.decoder_position + self.decoder_modality[modality][:, None]
        sequence = torch.cat([self.y_token(self._representation(encoded))[:, None], canvas.float()], dim=1)
        for block in self.decoder:
            sequence = block(sequence)
        return self.to_pixels(self.decoder_norm(sequence[:, 1:]))

    def patches(self, x: Tensor) -> Tensor:
        """Images (B, 1, H, W) → their patches (B, N, patch²), row by row."""
        p = self.patch
        batch, _, height, width = x.shape
        tiles = x.reshape(batch, height // p, p, width // p, p).permute(0, 1, 3, 2, 4)
        return tiles.reshape(batch, self.count, p * p)

    def _encoded(self, tokens: Tensor, modality: Tensor) -> Tensor:
        sequence = torch.cat([self.modality_token[modality][:, None], tokens.float()], dim=1)
        for block in self.encoder:
            sequence = block(sequence)
        return self.norm(sequence[:, 1:])

    def _representation(self, encoded: Tensor) -> Tensor:
        with torch.autocast(encoded.device.type, enabled=False):  # its differences within a modality are small
            return self.project(encoded.float().mean(dim=1))


def _block(width: int, heads: int) -> TransformerBlock:
    block = TransformerBlock(width, 4 * width, heads, qkv_bias=True, use_flash_attention=True)
    # MONAI builds it although there is no cross-attention; DistributedDataParallel waits for every trained parameter
    block.norm_cross_attn.requires_grad_(False)
    return block


def random_mask(images: int, patches: int, ratio: float, device: torch.device | str = "cpu") -> Tensor:
    """Masks (images, patches) bool, each with ``round(ratio * patches)`` random patches hidden."""
    order = torch.rand(images, patches, device=device).argsort(1).argsort(1)
    return order < round(ratio * patches)


class MaskedPatchLoss(nn.Module):
    """L_MRM: ``forward(prediction (B, N, P), (patches (B, N, P), masked (B, N)))`` → mean over masked patches only."""

    def forward(self, prediction: Tensor, target: tuple[Tensor, Tensor]) -> Tensor:
        patches, masked = target
        return (prediction.float() - patches).square().mean(dim=2)[masked].mean()
