"""Any2all as a MONAI Label app: ``monailabel start_server --app monai_app --studies FOLDER``.

MONAI Label makes this app while its web server starts, before a port is opened. Its routes are then replaced by ours
(`lib.stock` under their own addresses, `lib.routes` under ``/any2all/v1``) behind one gate; see `lib.door`.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

from any2all import __version__
from any2all.errors import Any2allError
from lib.datastore import StudyDatastore
from lib.door import close_the_door
from lib.infer import FillTask, PriorTraining
from lib.service import Service
from lib.settings import ServerSettings
from lib.training import Trainings
from monailabel.config import settings as label_settings
from monailabel.interfaces.app import MONAILabelApp

DESCRIPTION = "Fills in the brain images that a study lacks, from the ones it has and from undersampled raw MR data"


class Any2allApp(MONAILabelApp):
    """The app. Its parts: a `Service` (jobs, study store, sessions), batches, trainings."""

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        try:
            self.service = Service(
                ServerSettings.read(conf, os.environ, label_settings.MONAI_LABEL_SERVER_PORT), studies
            )
            self.trainings = Trainings(
                self.service.studies.root, self.service.settings.work_dir / "training", self.service.settings.limits
            )
            super().__init__(
                app_dir, studies, {}, name="Any2all", description=DESCRIPTION, version=__version__, labels=[]
            )
            close_the_door(self, sys.argv[1:])
        except Any2allError as error:
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # its traceback would bury the sentence
            print(f"error: {error.sentence()}", file=sys.stderr, flush=True)
            raise SystemExit(2) from None

    def init_datastore(self) -> StudyDatastore:
        return StudyDatastore(self.service.studies)

    def init_infers(self) -> dict[str, Any]:
        return {"any2all": FillTask(self.service)}

    def init_trainers(self) -> dict[str, Any]:
        return {"any2all": PriorTraining(self.trainings)}

    def init_strategies(self) -> dict[str, Any]:
        return {}

    def _load_sessions(self, load: bool = False) -> None:
        """Sessions are ours (`lib.sessions`): MONAI Label's own store tells its paths."""
        return None

    def on_init_complete(self) -> None:
        """MONAI Label is ready: start the worker."""
        self.service.start()

    def info(self) -> dict[str, Any]:
        """MONAI Label's description, with where to find ours."""
        return {**super().info(), "any2all": {"protocol": self.service.info()["protocol"], "api": "/any2all/v1"}}
