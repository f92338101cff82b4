"""Radial and spiral data through a whole study with the tiny prior, whose grid of 8 mm is coarser than the data's."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.mark.parametrize(
    ("mask", "consistency", "words"),
    [
        ("radial", "calibrated", "acceleration is 1.00 against Nyquist's rule (101 spokes)"),
        ("spiral", "moment", "acceleration is 1 against Nyquist's rule between the turns"),
    ],
)
def test_fully_sampled_data_decide_whatever_the_random_prior(desk, mask, consistency, words):
    """The last solve meets every sample on the data's own grid: it keeps what 8 mm cannot hold."""
    desk.rewrite("T2FLAIR", lambda data: data[:, :, 5:7])
    simulate = {"mask": mask, "acceleration": 1, "noise_std": 0.002, "coils": 4}
    entry = {"status": "undersampled", "file": "T2FLAIR.nii.gz", "simulate": simulate}
    desk.only({"name": "mcs", "steps": 5, "samples": 1, "consistency": consistency}, T2FLAIR=entry)
    desk.document["outputs"] = ["T2FLAIR"]
    result = desk.run()
    assert any(words in warning for warning in result.warnings)
    truth, found = (image.get_fdata() for image in (desk.image("T2FLAIR"), desk.output("T2FLAIR")))
    blocks = truth.reshape(32, 2, 32, 2, 2).mean(axis=(1, 3)).repeat(2, axis=0).repeat(2, axis=1)
    errors = [np.sqrt(((image - truth) ** 2).mean()) / truth.max() for image in (found, blocks)]
    print(f"{mask}: error {errors[0]:.3f} of the peak, of blocks of 8 mm {errors[1]:.3f}")
    assert found.shape == truth.shape and errors[0] < 0.6 * errors[1]
