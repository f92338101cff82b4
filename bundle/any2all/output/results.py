"""What the pipeline hands over to be written."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..geometry import Volume

Role = Literal["synthetic", "reconstructed"]


@dataclass(frozen=True, eq=False)
class ModalityResult:
    """One output; every volume is on the reference grid and in ``units``.

    Attributes:
        name: modality of the stack.
        role: ``reconstructed`` where data of this modality was measured, else ``synthetic``.
        mean: mean of the samples.
        std: their standard deviation, pooled with the neighbours' (`spread`), times ``std_scale``; None when there is
            one sample.
        samples: kept only when they are to be written.
        units: of every volume here (for a missing MR: "a.u.", u x 1000).
        effective_resolution_mm: what the sampler's grid could resolve.
        truth: the real image where it is known, in the same units.
        shown_input: first reconstruction of the measured data, for the picture.
        metrics: such as PSNR and SSIM against the truth, with the grid they were computed on.
        std_scale: what makes mean ± 1.645 std hold 90 % of the truth on validation heads; 1: not calibrated.
    """

    name: str
    role: Role
    mean: Volume
    units: str
    std: Volume | None = None
    samples: tuple[Volume, ...] = ()
    effective_resolution_mm: tuple[float, ...] | float | None = None
    truth: Volume | None = None
    shown_input: Volume | None = None
    metrics: dict[str, Any] | None = None
    std_scale: float = 1.0


@dataclass(frozen=True, eq=False)
class Result:
    """A filled study.

    Attributes:
        subject: its name.
        reference: the volume whose grid every output lies on (its file's own axis order).
        given: available images on the reference grid, for the picture; they are not written.
        outputs: what was asked for.
        warnings: sentences for the user.
        provenance: prior's sha256 and version, sampler and settings, seed, input checksums, ...; goes into the
            summary and, as JSON, into the header of every volume.
        seconds: per stage.
        reference_file: where the reference came from; a NIfTI header's geometry is then copied bit by bit.
        headline: one line for the picture, such as "mcs, 10 passes, 4 samples".
        self_check: whether the given images look like what the prior knows (`diffusion.selfcheck.Report.to_json`);
            goes into the summary as it is.
    """

    subject: str
    reference: Volume
    given: dict[str, Volume]
    outputs: list[ModalityResult]
    warnings: list[str] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    reference_file: Path | None = None
    headline: str = ""
    self_check: dict[str, Any] | None = None
