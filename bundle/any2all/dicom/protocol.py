"""How a series was acquired, read from classic or enhanced tags into the words of the physics."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .header import corrections, frame_text, number, of_frame, text, words
from .series import Series

_NO_AGENT = re.compile(r"(?:NO|NON|NONE|NOT|N|N/A|NA|NIL|WITHOUT|W/O|WO|UNENHANCED|NATIVE|0)(?:[\s_.-].*)?|", re.DOTALL)


@dataclass(frozen=True)
class Protocol:
    """Times in ms. ``None`` and empty sets: the tags do not say.

    Attributes:
        modality: MR, CT or PT.
        sequence: of SE, GR, IR, EP.
        prepared: whether the sequence variant says magnetisation prepared (MP).
        contrast: the agent as the tags name it, '' where none was given.
        weighting: Acquisition Contrast of enhanced MR, such as FLUID_ATTENUATED.
    """

    modality: str
    repetition_time: float | None = None
    echo_time: float | None = None
    inversion_time: float | None = None
    flip_angle: float | None = None
    echo_train: float | None = None
    field_strength: float | None = None
    b_value: float | None = None
    sequence: frozenset[str] = frozenset()
    prepared: bool = False
    volumetric: bool = False
    contrast: str = ""
    weighting: str = ""
    angiography: bool = False
    image_type: frozenset[str] = frozenset()
    sequence_name: str = ""
    description: str = ""
    body_part: str = ""
    kernel: str = ""
    corrected: frozenset[str] = frozenset()

    @property
    def times(self) -> str:
        """The parameters in a few words."""
        named = {"TR": self.repetition_time, "TE": self.echo_time, "TI": self.inversion_time}
        said = [f"{name} {value:g} ms" for name, value in named.items() if value]
        if self.flip_angle and "GR" in self.sequence:
            said.append(f"flip angle {self.flip_angle:g}")
        return ", ".join(said)


def protocol_of(series: Series) -> Protocol:
    """The protocol of a series, from its first frame."""
    header, n = series.header, series.frames[0].number
    times = of_frame(header, n, "InversionTimes")
    inversion = number(header, "InversionTime", n) or (
        number(header, "InversionTimes", n) if times is not None else None
    )
    echo = number(header, "EffectiveEchoTime", n) or number(header, "EchoTime", n)
    return Protocol(
        modality=text(header, "Modality").upper(),
        repetition_time=number(header, "RepetitionTime", n),
        echo_time=echo,
        inversion_time=inversion or None,
        flip_angle=number(header, "FlipAngle", n),
        echo_train=number(header, "EchoTrainLength", n),
        field_strength=number(header, "MagneticFieldStrength"),
        b_value=number(header, "DiffusionBValue", n),
        sequence=_sequence(series),
        prepared="MP" in words(header, "SequenceVariant"),
        volumetric=text(header, "MRAcquisitionType").upper() == "3D",
        contrast=_contrast(series),
        weighting=frame_text(header, n, "AcquisitionContrast"),
        angiography=text(header, "AngioFlag").upper() == "Y",
        image_type=frozenset(series.image_type) | {frame_text(header, n, "ComplexImageComponent")} - {""},
        sequence_name=(text(header, "SequenceName") or text(header, "PulseSequenceName")).lower(),
        description=series.description,
        body_part=text(header, "BodyPartExamined").upper(),
        kernel=frame_text(header, n, "ConvolutionKernel"),
        corrected=corrections(header),
    )


def _sequence(series: Series) -> frozenset[str]:
    """Scanning Sequence; of enhanced MR what Echo Pulse Sequence and its neighbours say."""
    header, n = series.header, series.frames[0].number
    found = set(words(header, "ScanningSequence")) & {"SE", "GR", "IR", "EP"}
    pulse = text(header, "EchoPulseSequence").upper()
    found |= {"SPIN": {"SE"}, "GRADIENT": {"GR"}, "BOTH": {"SE", "GR"}}.get(pulse, set())
    if text(header, "EchoPlanarPulseSequence").upper() == "YES":
        found.add("EP")
    if frame_text(header, n, "InversionRecovery") == "YES":
        found.add("IR")
    return frozenset(found)


def _contrast(series: Series) -> str:
    agent = text(series.header, "ContrastBolusAgent")
    if not _NO_AGENT.fullmatch(agent.upper()):
        return agent
    return "named in a sequence" if series.header.get("ContrastBolusAgentSequence") else ""
