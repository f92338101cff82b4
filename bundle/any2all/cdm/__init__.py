"""CDM, the second system: representations by a masked autoencoder, a diffusion on them, and one guided U-Net.

Our own implementation from the description of Xing et al., "Cross-conditioned Diffusion Model for Medical Image to
Image Translation" (MICCAI 2024, arXiv 2409.08500). No code of the authors was available; what the paper does not print
(sizes, embedding, step counts, optimiser) is our decision. No parity with the paper's numbers is claimed.

A study asks for it by ``"sampler": {"name": "cdm"}``; `source` finds its files and `any2all.filling` runs it.
"""
