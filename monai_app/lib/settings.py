"""How the server is set up: limits, token, folders; from ``--conf KEY VALUE`` and the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from any2all.errors import Any2allError

PREFIX = "ANY2ALL_"
BUNDLE = Path(__file__).resolve().parents[2] / "bundle"
LEAST_TOKEN = 16


@dataclass(frozen=True)
class Limits:
    """What a client may ask for. Served by ``info``; every number can be set by ``--conf``."""

    upload_bytes: int = 2 * 2**30  # of one request, as it is sent
    unpacked_bytes: int = 4 * 2**30  # of all files of a study, decompressed
    files: int = 24
    study_bytes: int = 2**20  # of the study's JSON text
    voxels: int = 2**27  # of one image or of one coil's k-space
    steps: int = 1000
    samples: int = 32
    queue: int = 16
    kept_jobs: int = 64  # finished jobs whose results wait for their client
    kept_bytes: int = 20 * 2**30  # of these results
    result_seconds: int = 3600
    upload_seconds: int = 1800  # for one request's body
    idle_seconds: int = 60  # between two pieces of it
    shutdown_seconds: int = 20  # that the running job has to finish when the server stops
    train_minutes: int = 7 * 24 * 60  # that a training may be asked for
    train_workers: int = 4


@dataclass(frozen=True)
class ServerSettings:
    """Everything that an administrator decides.

    Attributes:
        work_dir: jobs, uploads and trainings; only this server writes there.
        model_file: the prior's weights, its card beside them.
        cdm_file: CDM's, the same way; None: there is no CDM, and studies that ask for it are refused.
        device: ``cuda``, ``cpu``, ... ; None: cuda where there is one.
        batch_size: slices that the network sees at once; None: what suits the device.
        token: clients have to send ``Authorization: Bearer <token>``; None: loopback only.
        cors_origins: web pages of these origins may call the server; none by default.
        limits: see `Limits`.
    """

    work_dir: Path
    model_file: Path = BUNDLE / "models" / "model.pt"
    cdm_file: Path | None = None
    device: str | None = None
    batch_size: int | None = None
    token: str | None = field(default=None, repr=False)
    cors_origins: tuple[str, ...] = ()
    limits: Limits = Limits()

    @classmethod
    def read(cls, conf: Mapping[str, Any], environment: Mapping[str, str], port: int) -> ServerSettings:
        """From ``--conf`` pairs (which win) and ``ANY2ALL_<KEY>`` variables; the token only from the environment.

        Raises:
            Any2allError: an unknown key, a value that cannot be used, a token that is too short.
        """
        numbers = {f.name: f.default for f in fields(Limits)}
        known = {"work_dir", "model_file", "cdm_file", "device", "batch_size", "cors_origins", *numbers}
        for key in conf:
            if key not in known:
                raise Any2allError("unknown setting", key=f"conf.{key}", allowed=sorted(known), code="invalid_setting")
        said = {k: environment[PREFIX + k.upper()] for k in known if environment.get(PREFIX + k.upper())}
        said.update({k: str(v) for k, v in conf.items()})
        if "*" in said.get("cors_origins", ""):
            raise Any2allError(
                "every origin cannot be allowed",
                key="conf.cors_origins",
                value="*",
                allowed="origins such as https://viewer.example",
                code="invalid_setting",
            )
        cache = environment.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
        model_file = Path(said.get("model_file", cls.model_file)).absolute()
        return cls(
            work_dir=Path(os.path.realpath(said.get("work_dir") or os.path.join(cache, "any2all", f"server-{port}"))),
            model_file=model_file,
            cdm_file=_cdm_file(said.get("cdm_file"), model_file),
            device=said.get("device"),
            batch_size=_number("batch_size", said["batch_size"]) if "batch_size" in said else None,
            token=_token(environment),
            cors_origins=tuple(o.strip().rstrip("/") for o in said.get("cors_origins", "").split(",") if o.strip()),
            limits=Limits(**{k: _number(k, said[k]) for k in numbers if k in said}),
        )


def _cdm_file(said: str | None, model_file: Path) -> Path | None:
    """What was named, which has to be there; else ``cdm.pt`` beside the prior where that is there."""
    file = Path(said).absolute() if said else model_file.with_name("cdm.pt")
    if file.is_file():
        return file
    if said:
        raise Any2allError("there is no such file", key="conf.cdm_file", value=said, code="invalid_setting")
    return None


def _number(key: str, text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise Any2allError(
            "this setting is a number",
            key=f"conf.{key}",
            value=text,
            allowed="a whole number from 1",
            code="invalid_setting",
        )
    return int(text)


def _token(environment: Mapping[str, str]) -> str | None:
    """``ANY2ALL_TOKEN``, or the first line of the file that ``ANY2ALL_TOKEN_FILE`` names."""
    token, file = environment.get(PREFIX + "TOKEN"), environment.get(PREFIX + "TOKEN_FILE")
    if token and file:
        raise Any2allError(
            "two tokens were given", key=PREFIX + "TOKEN", allowed="one of TOKEN and TOKEN_FILE", code="invalid_setting"
        )
    key = PREFIX + ("TOKEN_FILE" if file else "TOKEN")
    if file:
        try:
            token = Path(file).read_text(encoding="utf-8").splitlines()[0]
        except (OSError, ValueError, IndexError) as error:
            raise Any2allError(
                "the token's file cannot be read",
                key=key,
                value=file,
                hint=type(error).__name__,
                code="invalid_setting",
            ) from None
    if not token and key in environment:
        raise Any2allError("the token is empty", key=key, code="invalid_setting")
    if token is None or not token:
        return None
    token = token.strip()
    if len(token) < LEAST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise Any2allError(
            "the token cannot be used",
            key=key,
            allowed=f"at least {LEAST_TOKEN} printable characters without blanks",
            code="invalid_setting",
        )
    return token
