"""The same study behind MONAI Label's stock inference route, for ``make bench`` only: what polls cost there."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from any2all.diffusion.prior import load_prior
from any2all.pipeline import run_study
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType


class StockFill(InferTask):
    def __init__(self) -> None:
        super().__init__(InferType.OTHERS, labels=None, dimension=3, description="any2all by the stock route")
        self.prior = load_prior(os.environ["BENCH_MODEL"])

    def is_valid(self) -> bool:
        return True

    def __call__(self, request: dict[str, Any]) -> tuple[None, dict[str, Any]]:
        with tempfile.TemporaryDirectory() as folder:
            run_study(os.environ["BENCH_STUDY"], self.prior, Path(folder) / "out")
        return None, {}


class StockApp(MONAILabelApp):
    def init_infers(self) -> dict[str, InferTask]:
        return {"any2all": StockFill()}
