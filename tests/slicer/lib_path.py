"""Makes `Any2allLib` importable in either environment: pure Python, nothing of Slicer."""

from __future__ import annotations

import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
MODULE = REPOSITORY / "Any2allSlicer"
LIBRARY = MODULE / "Any2allLib"

if str(MODULE) not in sys.path:
    sys.path.insert(0, str(MODULE))
