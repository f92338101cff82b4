"""How MONAI Label sees the app: one model of type ``others``, one trainer."""

from __future__ import annotations

from typing import Any

from any2all.errors import Any2allError
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from monailabel.interfaces.tasks.train import TrainTask

from .service import Service
from .training import Trainings, TrainParams

DESCRIPTION = "Missing and undersampled modalities of a brain study, with uncertainty"


class FillTask(InferTask):
    """The model of ``/info`` and ``/infer/any2all``. ``others`` keeps it out of lists of segmentation models."""

    def __init__(self, service: Service) -> None:
        super().__init__(InferType.OTHERS, labels=None, dimension=3, description=DESCRIPTION)
        self.service = service

    def is_valid(self) -> bool:
        return True

    def info(self) -> dict[str, Any]:
        told = self.service.info()
        inputs = [{"name": m.name, "raw_data": m.raw_data, "units": m.units} for m in self.service.stack.modalities]
        return {**super().info(), "modalities": inputs, "presets": told["presets"], "prior": told["prior"]}

    def __call__(self, request: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
        raise Any2allError("studies are filled by jobs", key="model", hint="POST /infer/any2all or /any2all/v1/jobs")


class PriorTraining(TrainTask):
    """The trainer of ``/info`` and ``/train/any2all``."""

    def __init__(self, trainings: Trainings) -> None:
        super().__init__("Train a prior on the study store: prepare.json, then train.json")
        self.trainings = trainings

    def config(self) -> dict[str, Any]:
        return TrainParams().model_dump(exclude={"client_id"})

    def stats(self) -> dict[str, Any]:
        try:
            return self.trainings.status()
        except Any2allError:
            return {}

    def __call__(self, request: dict[str, Any], datastore: Any) -> dict[str, Any]:
        raise Any2allError("a training is started over HTTP", key="model", hint="POST /train/any2all")
