from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def phantom() -> np.ndarray:
    """Two slices of a smooth, lopsided head in u, ``(2, 96, 80)``."""
    y = (np.arange(96) - 48)[:, None] / 96
    x = (np.arange(80) - 40)[None] / 80
    skull = 1 / (1 + np.exp(-60 * (0.42 - np.hypot(y, x))))
    brain = 1 / (1 + np.exp(-60 * (0.35 - np.hypot(y, x))))
    spots = [np.exp(-((y - a) ** 2 + (x - b) ** 2) / 0.003) for a, b in ((-0.15, 0.1), (0.1, -0.12), (0.2, 0.1))]
    first = 0.7 * skull - 0.4 * brain + 0.3 * spots[0] + 0.25 * spots[1] - 0.2 * spots[2]
    return np.stack([first, 0.8 * first + 0.1 * spots[0]]).clip(0).astype(np.float32)


@pytest.fixture(scope="session")
def measured_file() -> Path:
    """The measured 8-coil slice; tests that need it are skipped where the data folder is absent."""
    root = Path(os.environ.get("ANY2ALL_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
    path = root / "kspace" / "sigpy_brain_8ch.npy"
    if not path.is_file():
        pytest.skip(f"measured k-space is not at {path}")
    return path
