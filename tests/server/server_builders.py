"""Studies as a client sends them, waiting, and a real server process."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

REPOSITORY = Path(__file__).parents[2]


def wait_until(condition: Callable[[], Any], seconds: float = 90.0) -> Any:
    """The first true value of ``condition``; fails when it does not come."""
    end, pause = time.monotonic() + seconds, 0.01
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(pause)
        pause = min(1.1 * pause, 0.05)  # what is waited for needs the processor more than the one who asks
    raise AssertionError("it did not happen in time")


def study(
    steps: int = 5, samples: int = 1, outputs: tuple[str, ...] = ("CT",), raw: bool = False, **more: Any
) -> dict[str, Any]:
    """T1, T2 and T2FLAIR given (T2FLAIR as simulated raw data where ``raw``), the rest missing."""
    flair = {"status": "available", "file": "T2FLAIR.nii.gz"}
    if raw:
        flair = {"status": "undersampled", "file": "T2FLAIR.nii.gz", "simulate": {"acceleration": 4}}
    return {
        "version": 1,
        "subject": "study",
        "modalities": {
            "T1": {"status": "available", "file": "T1.nii.gz"},
            "T2": {"status": "available", "file": "T2.nii.gz"},
            "T2FLAIR": flair,
        },
        "outputs": list(outputs),
        "sampler": {"name": "mcs", "steps": steps, "samples": samples, "consistency": "calibrated"},
        **more,
    }


class Server:
    """A real server process, started by the README's command, with the tiny prior.

    Args:
        folder: gets ``work``, ``studies`` and ``server.log``.
        model_file: the prior.
        conf: ``--conf`` pairs.
        environment: further variables.
        arguments: further arguments of ``start_server``.
        app, stock: another app, with MONAI Label's own routes (for comparison).
    """

    def __init__(
        self,
        folder: Path,
        model_file: Path,
        conf: dict[str, Any] | None = None,
        environment: dict[str, str] | None = None,
        arguments: tuple[str, ...] = (),
        app: Path = REPOSITORY / "monai_app",
        stock: bool = False,
    ) -> None:
        self.folder, self.studies, self.work = folder, folder / "studies", folder / "work"
        self.studies.mkdir(parents=True, exist_ok=True)
        self.app, self.stock = app, stock
        ours = {} if stock else {"work_dir": self.work, "model_file": model_file, "device": "cpu"}
        self.conf = {**ours, **(conf or {})}
        self.environment, self.arguments = environment or {}, arguments
        self.port = free_port()
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60, trust_env=False)
        self.start()

    def start(self) -> None:
        """Start the process and wait until its worker is ready."""
        self.launch()
        try:
            wait_until(lambda: self.process.poll() is not None or self.health() == "ok", 240)
        except AssertionError as error:  # nobody else could stop it then
            self.process.kill()
            raise AssertionError(self.log()) from error
        assert self.process.poll() is None, self.log()

    def launch(self) -> None:
        pairs = [part for key, value in self.conf.items() for part in ("--conf", key, str(value))]
        command = [sys.executable, "-m", "monailabel.main", "start_server", "--app", str(self.app)]
        command += ["--studies", str(self.studies), "--port", str(self.port), *pairs, *self.arguments]
        self.process = subprocess.Popen(
            command,
            stdout=(self.folder / "server.log").open("ab"),
            stderr=subprocess.STDOUT,
            env={**os.environ, **self.environment},
            cwd=self.folder,
        )

    def log(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")

    def health(self) -> str | None:
        try:
            if self.stock:
                return "ok" if self.http.get("/info/").status_code == 200 else None
            return self.http.get("/any2all/v1/health").json()["state"]
        except (httpx.TransportError, ValueError):
            return None

    def submit(self, files: Path, document: dict[str, Any]) -> httpx.Response:
        """POST jobs with the files that the study names."""
        entries = document["modalities"].values()
        names = sorted({e[k] for e in entries for k in ("file", "kspace", "coil_maps") if k in e})
        parts = [("files", (name, (files / name).read_bytes())) for name in names]
        return self.http.post("/any2all/v1/jobs", data={"study": json.dumps(document)}, files=parts)

    def status(self, job_id: str) -> dict[str, Any]:
        return self.http.get(f"/any2all/v1/jobs/{job_id}").json()

    def wait(self, job_id: str) -> dict[str, Any]:
        return wait_until(lambda: (s := self.status(job_id))["state"] not in ("queued", "running") and s)

    def kill(self) -> None:
        """As the system kills: no time for anything. The worker sees that its server is gone."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Also of one that has ended already."""
        self.process.terminate()
        code = self.process.wait(60)
        self.http.close()
        return code


def free_port() -> int:
    """A port of those that nobody is given who asks for any: a server needs time until it listens there."""
    for port in random.SystemRandom().sample(range(20_000, 32_000), 50):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no port is free")


def tree(folder: Path) -> set[str]:
    """All files and folders below a folder."""
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*")}
