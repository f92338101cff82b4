"""One modality of the form: what the user has said of it, why it cannot be sent, and its part of the study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .protocol import ModalityInfo, ServerInfo
from .raw_file import files_of, tells_trajectory, tells_voxel_size

DEGRADED = ("noisy", "blurred", "lowres")
STATUSES = ("available", "undersampled", *DEGRADED, "missing")
GIVEN = ("available", "undersampled", *DEGRADED)  # the reference is looked for in this order
PROFILES = ("box", "gaussian")


@dataclass(frozen=True)
class VolumeFacts:
    """What the form has to know of a volume of the scene. ``made_here``: it is certainly a result of Any2all."""

    name: str
    voxels: int = 0
    made_here: bool = False


@dataclass
class Row:
    """One modality. ``volume``: node id or ''. ``raw_file``: path or ''; with '' an undersampled row is simulated.

    Attributes:
        voxel_size_mm: (H, W, slice) as it was entered; it counts where the raw file does not say it.
        trajectory: path, or '', of a file that says where radial or spiral raw data was sampled; it counts where the
            raw file does not say it.
        acceleration, acs_lines, coils, noise_std: of the simulation; noise as complex std in u units.
        from_file: raw data is wanted from a file, also while none is chosen yet.
        image_noise_std: of a noisy, blurred or lowres image, in its own units; None: the server estimates it.
        psf_fwhm_mm: width of a blurred image's point-spread function, one number or left-right, anterior-posterior,
            superior-inferior.
        slice_profile: of a lowres image's slices.
    """

    status: str = "missing"
    volume: str = ""
    raw_file: str = ""
    voxel_size_mm: tuple[float, float, float] | None = None
    acceleration: int = 4
    acs_lines: int = 0
    coils: int = 8
    noise_std: float = 0.01
    simulation_seed: int = 0
    wanted: bool = True
    from_file: bool = False
    trajectory: str = ""
    image_noise_std: float | None = None
    psf_fwhm_mm: tuple[float, ...] | None = None
    slice_profile: str = "box"

    @property
    def simulated(self) -> bool:
        return self.status == "undersampled" and not (self.raw_file or self.from_file)

    @property
    def uses_volume(self) -> bool:
        """Whether an image of the scene is sent for this modality."""
        return self.status in ("available", *DEGRADED) or self.simulated

    @property
    def raw_files(self) -> list[Path]:
        """Every file that is sent of an undersampled modality: raw data and trajectory, BART's in pairs."""
        named = (self.raw_file, self.trajectory_file) if self.status == "undersampled" else ()
        return [file for name in named if name for file in files_of(name)]

    @property
    def sent_voxel_size_mm(self) -> tuple[float, float, float] | None:
        """The voxel size that is sent with the raw file; None where the file says its own, which nothing overrules."""
        return None if not self.raw_file or tells_voxel_size(self.raw_file) else self.voxel_size_mm

    @property
    def trajectory_file(self) -> str:
        """The path of the trajectory that is sent with the raw file, or ''."""
        return self.trajectory if self.raw_file and not tells_trajectory(self.raw_file) else ""


def row_problem(modality: ModalityInfo, row: Row, info: ServerInfo, volumes: Mapping[str, VolumeFacts] | None) -> str:
    """Why one given modality cannot be sent, in words; '' where it can."""
    if row.status == "undersampled" and not modality.raw_data:
        return f"{modality.name} is never measured as raw data: tick it as available or missing."
    if row.uses_volume:
        return _volume_problem(modality.name, row, info, volumes)
    if not row.raw_file:
        return f"{modality.name} is ticked as undersampled: choose its raw data file."
    path, suffixes = Path(row.raw_file), info.accepts.get("raw", ())
    lacking = next((file for file in files_of(row.raw_file) if not file.is_file()), None)
    if lacking is not None:
        return f"The raw data of {modality.name} does not exist: {lacking.name}."
    if suffixes and path.suffix.lower() not in suffixes:
        return f"The raw data of {modality.name} is of the kind '{path.suffix}'; possible are {', '.join(suffixes)}."
    size = row.sent_voxel_size_mm
    if size is None and not tells_voxel_size(row.raw_file):
        return f"The raw data of {modality.name} does not say its voxel size: enter it (H, W, slice, in mm)."
    if size is not None and not all(0 < edge <= 100 for edge in size):
        return f"The voxel size of {modality.name} is three numbers above 0 and at most 100 mm."
    return _trajectory_problem(modality.name, row, suffixes) if row.trajectory_file else ""


def _trajectory_problem(name: str, row: Row, suffixes: Sequence[str]) -> str:
    lacking = next((file for file in files_of(row.trajectory) if not file.is_file()), None)
    if lacking is not None:
        return f"The trajectory of {name} does not exist: {lacking.name}."
    kind = Path(row.trajectory).suffix.lower()
    if suffixes and kind not in (*suffixes, ".hdr"):
        return f"The trajectory of {name} is of the kind '{kind}'; possible are {', '.join(suffixes)}."
    if set(files_of(row.trajectory)) & set(files_of(row.raw_file)):
        return f"The trajectory of {name} is the file of its raw data: choose the one that says where it was sampled."
    return ""


def _volume_problem(name: str, row: Row, info: ServerInfo, volumes: Mapping[str, VolumeFacts] | None) -> str:
    if not row.volume:
        lacking = "a volume, or a raw data file" if row.status == "undersampled" else "its volume"
        return f"{name} is ticked as {row.status}: choose {lacking}."
    if volumes is not None and row.volume not in volumes:
        return f"The volume of {name} is no longer in the scene: choose another one."
    facts = VolumeFacts("") if volumes is None else volumes[row.volume]
    if facts.made_here:
        return f"The volume of {name} is a result of Any2all, not an acquired image: choose the acquired one."
    voxels, most = facts.voxels, info.limits.get("voxels")
    if most is not None and voxels > most:
        return (
            f"The volume of {name} has {voxels / 1e6:.0f} million voxels; this server takes {most / 1e6:.0f} million."
        )
    ranges = (("acceleration", row.acceleration, 1, 64), ("number of coils", row.coils, 1, 128))
    for what, value, low, high in (*ranges, ("number of ACS lines", row.acs_lines, 0, 1024)):
        if row.simulated and not low <= value <= high:
            return f"The {what} of {name} is {value}; it is from {low} to {high}."
    if row.simulated and not 0 < row.noise_std <= 1:
        return f"The noise of {name} is {row.noise_std:g}; it is above 0 and at most 1."
    return _degraded_problem(name, row, info) if row.status in DEGRADED else ""


def _degraded_problem(name: str, row: Row, info: ServerInfo) -> str:
    if row.status not in info.takes:
        return f"This server takes no image that is {row.status}: tick {name} as available or missing."
    if row.status == "blurred" and row.psf_fwhm_mm is None:
        return f"{name} is ticked as blurred: enter the width of the blur in mm (one number, or three)."
    if row.status == "blurred" and not all(0 < width <= 100 for width in row.psf_fwhm_mm):
        return f"The width of the blur of {name} is above 0 and at most 100 mm."
    if row.image_noise_std is not None and row.image_noise_std <= 0:
        return f"The noise of {name} is {row.image_noise_std:g}; it is above 0, or left to be estimated."
    return ""


def modality_document(row: Row, names: Mapping[str, str]) -> dict[str, Any]:
    """One modality of a study (contract 1). ``names``: node id or file → name of its upload."""
    if row.status == "missing":
        return {"status": "missing"}
    if row.status == "available":
        return {"status": "available", "file": names[row.volume]}
    if row.status in DEGRADED:
        return {"status": row.status, "file": names[row.volume], **_settings_of_degraded(row)}
    if row.raw_file:
        raw = {"status": "undersampled", "kspace": names[row.raw_file]}
        raw = {**raw, "trajectory": names[row.trajectory_file]} if row.trajectory_file else raw
        size = row.sent_voxel_size_mm
        return raw if size is None else {**raw, "voxel_size_mm": list(size)}
    simulate = {
        "acceleration": row.acceleration,
        "acs_lines": row.acs_lines,
        "coils": row.coils,
        "noise_std": row.noise_std,
        "seed": row.simulation_seed,
    }
    return {"status": "undersampled", "file": names[row.volume], "simulate": simulate}


def _settings_of_degraded(row: Row) -> dict[str, Any]:
    """What a status asks for beside its image, and nothing that another one would."""
    settings: dict[str, Any] = {}
    if row.status == "blurred":
        settings["psf_fwhm_mm"] = row.psf_fwhm_mm[0] if len(row.psf_fwhm_mm) == 1 else list(row.psf_fwhm_mm)
    if row.status == "lowres":
        settings["slice_profile"] = row.slice_profile
    return settings if row.image_noise_std is None else {**settings, "noise_std": row.image_noise_std}
