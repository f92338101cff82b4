"""What the server refuses before a job exists: too many steps, too many voxels, files that unpack to too much."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from any2all.errors import Any2allError
from any2all.study.presets import preset_settings
from any2all.study.spec import StudySpec

from .array_sizes import npy_bytes, npz_bytes
from .image_sizes import mha_bytes, nifti_bytes, nrrd_bytes
from .inflate import TooMuch, Unusable
from .raw_sizes import cfl_bytes, h5_bytes, hdr_bytes
from .settings import Limits
from .study_file import StudyFile

_IMAGES = {".nii": nifti_bytes, ".nii.gz": nifti_bytes, ".nrrd": nrrd_bytes, ".mha": mha_bytes}
_HDF5 = {".h5": h5_bytes, ".hdf5": h5_bytes, ".mrd": h5_bytes}
_ARRAYS = {".npy": npy_bytes, ".npz": npz_bytes, **_HDF5, ".cfl": cfl_bytes, ".hdr": hdr_bytes}
FORMATS = {"file": _IMAGES, "kspace": _ARRAYS, "coil_maps": _ARRAYS, "trajectory": _ARRAYS}


def check_study(spec: StudySpec, limits: Limits) -> None:
    """Hold a study and the headers of all its files against the server's limits; no image is loaded.

    A file that two modalities name counts twice, as it will be loaded twice.

    Raises:
        Any2allError: ``too_large`` (steps, samples, voxels, unpacked bytes) or ``invalid_image`` (a file that is
            damaged, points elsewhere, or could be understood in two ways), naming the study key.
    """
    _check_sampler(spec, limits)
    room = limits.unpacked_bytes
    for name, modality in spec.modalities.items():
        for which in FORMATS:
            path = getattr(modality, which)
            if path is not None:
                room -= unpacked_bytes(StudyFile(path, f"modalities.{name}.{which}", limits, room))


def check_files(paths: Sequence[Path], limits: Limits) -> None:
    """Hold the files of a session against the limits before anything reads in them what they are.

    Raises:
        Any2allError: as `check_study`, naming ``files``.
    """
    room = limits.unpacked_bytes
    for path in paths:
        which = "kspace" if path.name.lower().endswith(tuple(_ARRAYS)) else "file"
        room -= unpacked_bytes(StudyFile(path, f"files.{which}", limits, room))


def _check_sampler(spec: StudySpec, limits: Limits) -> None:
    one_pass = bool(spec.available and not spec.measured)
    settings = preset_settings(spec.preset, one_pass, spec.sampler)
    steps = 1 if settings.name == "cdm" else settings.steps  # its steps are no passes of a large network
    for key, value, most in (("steps", steps, limits.steps), ("samples", settings.samples, limits.samples)):
        if value > most:
            raise Any2allError(
                f"more {key} than this server takes",
                key=f"sampler.{key}",
                value=value,
                allowed=f"1 to {most}",
                code="too_large",
            )


def unpacked_bytes(file: StudyFile) -> int:
    """Bytes that one file holds when unpacked, by its header and by counting; in bounded memory and time.

    Raises:
        Any2allError: ``too_large`` or ``invalid_image``; nothing else, whatever the file holds.
    """
    formats = FORMATS[file.key.rpartition(".")[2]]
    name = file.path.name.lower()
    measure = next((formats[suffix] for suffix in formats if name.endswith(suffix)), None)
    if measure is None:
        raise file.refused("unknown format", file.path.name, allowed=tuple(formats))
    try:
        return measure(file)
    except Any2allError as error:
        if error.code in ("too_large", "invalid_image"):
            raise
        value = None if error.value is None else ascii(str(error.value))[1:-1][:80]  # a name in the file, perhaps
        raise file.refused(error.message, value, error.allowed, error.hint) from None
    except TooMuch:
        raise file.too_large() from None
    except Unusable as error:
        raise file.refused(f"the file cannot be used: {error}", file.path.name) from None
    except Exception as error:  # the readers of a dozen libraries: each of their errors means the same to the user
        raise file.refused(
            "the file is damaged or of another format", file.path.name, hint=type(error).__name__
        ) from None
