"""Body-weight SUV from a PET series' own tags, by the QIBA rule ("SUV vendor-neutral pseudo-code", FDG-PET/CT profile).

SUVbw = activity concentration (Bq/ml) * weight (g) / dose decayed to the series' reference time (Bq)
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta

from pydicom.dataset import Dataset

from .header import (
    GE_SCAN_DATETIME,
    PHILIPS_ACTIVITY_FACTOR,
    PHILIPS_SUV_FACTOR,
    corrections,
    measured_units,
    number,
    numbers,
    of_frame,
    private,
    text,
)
from .planes import refused
from .series import Frame, Series

_PLAUSIBLE_WEIGHT_KG = (0.5, 400.0)
_CODED_UNITS = {"Bq/ml": "BQML", "g/ml{SUVbw}": "GML"}
_LONGEST_UPTAKE = timedelta(hours=24)


def suv_factor(series: Series) -> tuple[float, list[str]]:
    """What a rescaled value of this PET series is multiplied with to give SUVbw (g/ml), and warnings.

    Raises:
        Any2allError: not attenuation or decay corrected, other units, or a tag that the factor needs is missing.
    """
    header = series.header
    coded = measured_units(header, series.frames[0].number)
    units = text(header, "Units").upper() or _CODED_UNITS.get(coded, coded)
    if units == "GML":
        kind = text(header, "SUVType").upper() or "BW"
        if kind != "BW":
            raise refused("the SUV is not by body weight", kind, "SUV Type BW", "export it in Bq/ml")
        return 1.0, []
    if units == "CNTS":
        suv = numbers(private(header, PHILIPS_SUV_FACTOR))
        if suv and suv[0] > 0:
            return suv[0], []
        activity = numbers(private(header, PHILIPS_ACTIVITY_FACTOR))
        if activity and activity[0] > 0:
            factor, warnings = _from_activity(series)
            return activity[0] * factor, warnings
        raise refused(
            "the PET is in counts, and the scanner's factor to SUV is not in the file",
            "Units CNTS",
            hint="private tags (7053,1000) and (7053,1009) were lost, as anonymising does",
        )
    if units != "BQML":
        raise refused("no SUV can be made of these PET units", units or "no Units", ("BQML", "CNTS", "GML"))
    return _from_activity(series)


def _from_activity(series: Series) -> tuple[float, list[str]]:
    header = series.header
    corrected = corrections(header)
    if not {"ATTN", "DECY"} <= corrected:
        said = "\\".join(sorted(corrected)) or "no Corrected Image"
        raise refused("the PET is not corrected for attenuation and decay", said, "ATTN and DECY")
    weight = number(header, "PatientWeight")
    lowest, highest = _PLAUSIBLE_WEIGHT_KG
    if weight is None or not lowest <= weight <= highest:
        raise refused("no SUV: Patient's Weight is missing or not in kg", weight, f"{lowest:g} to {highest:g} kg")
    tracer = _tracer(header)
    dose = number(tracer, "RadionuclideTotalDose")
    if dose is None or dose <= 0:
        raise refused("no SUV: Radionuclide Total Dose is missing", dose, "Bq")
    if dose < 1e4:
        raise refused("no SUV: Radionuclide Total Dose is not in Bq", dose, "at least 10000 Bq")
    correction = text(header, "DecayCorrection").upper()
    moment = text(header, "DecayCorrectionDateTime")  # an enhanced image says to which time it was corrected
    said = _moment(moment[:8], moment[8:])
    if not correction and said is not None:
        correction = "START"
    if correction == "ADMIN":
        return weight * 1000 / dose, []
    if correction != "START":
        raise refused(
            "no SUV: the reference time of the decay correction is not known", correction or "none", ("START", "ADMIN")
        )
    half_life = number(tracer, "RadionuclideHalfLife")
    if half_life is None or half_life <= 0:
        raise refused("no SUV: Radionuclide Half Life is missing", half_life, "seconds")
    reference, warnings = (said, []) if said is not None else _reference_time(series, half_life)
    injected, notes = _injected(tracer, reference)
    waited = reference - injected
    if not timedelta(0) <= waited <= _LONGEST_UPTAKE:
        raise refused(
            "no SUV: the time from injection to scan is impossible",
            f"{waited.total_seconds() / 60:.0f} minutes",
            "0 to 24 hours",
            "dates or times were changed, as anonymising does",
        )
    decayed = dose * 2.0 ** (-waited.total_seconds() / half_life)
    return weight * 1000 / decayed, warnings + notes


def _tracer(header: Dataset) -> Dataset:
    items = header.get("RadiopharmaceuticalInformationSequence")
    if not items:
        raise refused("no SUV: the Radiopharmaceutical Information is missing")
    return items[0]


def _reference_time(series: Series, half_life: float) -> tuple[datetime, list[str]]:
    """The time to which the scanner corrected decay: the series' start, unless it was rewritten later.

    A Series Time after the first Acquisition Time is that of a later processing step; the start is then worked out
    from the first frame, whose Frame Reference Time is that of its mean count rate.
    """
    frames = {id(frame.header): frame for frame in series.frames}.values()
    timed = [(when, frame) for frame in frames if (when := _acquired(frame)) is not None]
    header = series.header
    start = _moment(text(header, "SeriesDate"), text(header, "SeriesTime"))
    if not timed:
        raise refused("no SUV: Acquisition Date and Time are missing")
    first, frame = min(timed, key=lambda pair: pair[0])
    if start is not None and start <= first:
        return start, []
    said = private(header, GE_SCAN_DATETIME)
    scanned = _moment(str(said)[:8], str(said)[8:]) if said else None
    if scanned is not None:
        return scanned, []
    middle, lasted = number(frame.header, "FrameReferenceTime"), number(frame.header, "ActualFrameDuration")
    if middle is None or lasted is None or lasted <= 0:
        raise refused(
            "no SUV: Series Time is later than the acquisition, and the frame's own times are missing",
            hint="Frame Reference Time and Actual Frame Duration would tell the start",
        )
    rate = math.log(2) / half_life
    decayed = rate * lasted / 1000
    mean_rate = math.log(decayed / (1 - math.exp(-decayed))) / rate  # after the frame began, of its mean count rate
    note = "Series Time is later than the acquisition: the scan's start was worked out from the first frame's times"
    return first + timedelta(seconds=mean_rate - middle / 1000), [note]


def _acquired(frame: Frame) -> datetime | None:
    header = frame.header
    whole = text(header, "AcquisitionDateTime")
    found = _moment(text(header, "AcquisitionDate") or text(header, "SeriesDate"), text(header, "AcquisitionTime"))
    if found is None and whole:
        found = _moment(whole[:8], whole[8:])
    if found is None:
        own = str(of_frame(header, frame.number, "FrameReferenceDateTime") or "")
        found = _moment(own[:8], own[8:])
    return found


def _injected(tracer: Dataset, reference: datetime) -> tuple[datetime, list[str]]:
    """When the tracer was given: its date and time, else its time on the scan's day (or the day before)."""
    whole = text(tracer, "RadiopharmaceuticalStartDateTime")
    found = _moment(whole[:8], whole[8:]) if whole else None
    if found is not None:
        return found, []
    found = _moment(reference.strftime("%Y%m%d"), text(tracer, "RadiopharmaceuticalStartTime"))
    if found is None:
        raise refused("no SUV: the time of injection is missing", allowed="Radiopharmaceutical Start (Date)Time")
    if found > reference:
        return found - timedelta(days=1), ["the tracer was given before midnight, the day before the scan"]
    return found, []


def _moment(date: str, time: str) -> datetime | None:
    """DICOM date and time (a time zone, the same in both, is left out)."""
    time = time.split("+")[0].split("-")[0].strip()
    whole, _, fraction = time.partition(".")
    try:
        found = datetime.strptime(date.strip() + whole.ljust(6, "0")[:6], "%Y%m%d%H%M%S")
        return found + timedelta(seconds=float(f"0.{fraction}")) if fraction else found
    except ValueError:
        return None
