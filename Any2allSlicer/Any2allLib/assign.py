"""Which volume of the scene is which modality: by its name, by DICOM text, and by how it was measured.

Names follow the server's anchored patterns, longest first (``T2FLAIR`` is never ``T2``, contrast never ``T1``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .protocol import ModalityInfo

KIND_OF_TAG = {"MR": "MR", "CT": "CT", "PT": "PET"}  # DICOM Modality (0008,0060)
TEXT_TAGS = ("SeriesDescription", "ProtocolName", "SequenceName")
_SUFFIX = re.compile(r"\.(nii|nrrd|mha|mhd|h5|npy|npz|cfl)(\.gz)?$", re.IGNORECASE)
_WORD_BEGINS = re.compile(r"(?<=[a-z])(?=[A-Z][A-Za-z0-9])|(?<=[A-Z])(?=[A-Z][a-z])")
_NO_STUDY_IMAGE = re.compile(
    r"(?:^|_)(locali[sz]er|loc|scout|survey|topogram|surview|mask|seg(mentation)?|label(s|map)?|adc|dwi|dti|trace\w*"
    r"|m?ip|minip|pha(se)?|tof|mra|angio\w*|bold|fmri|perf(usion)?|synthesi[sz]ed|uncertainty)(?=$|_)",
    re.IGNORECASE,
)
_WITHOUT_CONTRAST = re.compile(
    r"(?:^|_)(?:without|w_?o|non?|pre|before|ohne|sans|sin|senza)_(?:iv_)?(?:[ck]ontrast[^_]*|gd|gad[^_]*|km|ce)(?=$|_)",
    re.IGNORECASE,
)
_WITH_AND_WITHOUT = re.compile(r"(?:^|_)w(?:ith)?_*(?:and_)?w(?:_?o|ithout)(?=$|_)", re.IGNORECASE)
_BROUGHT_TO = re.compile(r"(?:^|_)(?:to|onto|in|on)_[^_]+", re.IGNORECASE)  # the grid of another image
_BIDS_SPACE = re.compile(r"_space-[A-Za-z0-9]+(?=_)")  # so does this entity
_SYNTHETIC = re.compile(r"(?:^|_)synthe\w*(?=$|_)", re.IGNORECASE)  # of MR: a scanner computed it
_ANY2ALL = re.compile(r"(?<![a-z])any2all(?![a-z])", re.IGNORECASE)  # a saved scene's file has it behind a "%20"
_SLICERS_ENDING = r"(?:[ _]cropped)?(?:_\d+)?"  # of a cropped volume, and of a name that was taken


@dataclass(frozen=True)
class VolumeInfo:
    """A volume of the scene. ``dicom``: values by DICOM keyword; times in ms.

    ``made_here``: a result of Any2all, which is never taken for a measured image.
    """

    id: str
    name: str
    dicom: Mapping[str, Any] = field(default_factory=dict)
    made_here: bool = False


def assign(volumes: Sequence[VolumeInfo], stack: Sequence[ModalityInfo]) -> dict[str, str]:
    """Modality → volume id. A modality gets the volume that matches it best, the first one of equals."""
    best: dict[str, tuple[tuple[int, int, int], str]] = {}
    for volume in volumes:
        found = match(volume, stack)
        if found is None:
            continue
        name, score = found
        if name not in best or score > best[name][0]:
            best[name] = (score, volume.id)
    return {modality.name: best[modality.name][1] for modality in stack if modality.name in best}


def match(volume: VolumeInfo, stack: Sequence[ModalityInfo]) -> tuple[str, tuple[int, int, int]] | None:
    """The modality that a volume shows, and how sure that is (larger is surer); None where nothing fits."""
    texts = _texts(volume)
    if volume.made_here or _is_std_file(volume.name, stack):
        return None
    if any(names_any2all(text) or _NO_STUDY_IMAGE.search(text) for text in texts):
        return None
    candidates = [m for m in stack if _possible(m, volume, texts)]
    measured = _by_measurement(volume, candidates)
    plain = not _has_contrast_agent(volume)
    for certainty, text in zip(range(len(texts), 0, -1), texts):
        before, all_but = _BROUGHT_TO.split(text, maxsplit=1)[0], _BROUGHT_TO.sub("", text)
        lengths = _lengths(before, candidates) or _lengths(all_but, candidates)
        if not lengths:
            continue
        name = max(lengths, key=lambda n: lengths[n])
        if measured == "T2FLAIR" and name == "T2":  # "dark fluid", and other names of the same
            name, certainty = measured, 0
        return name, (int(plain), certainty, lengths.get(name, 0))
    return None if measured is None else (measured, (int(plain), 0, 0))


def _lengths(text: str, candidates: Sequence[ModalityInfo]) -> dict[str, int]:
    """How long the longest pattern of each modality is that ``text`` holds; only of those it holds one of."""
    runs = {m.name: max((_token_run(pattern, text) for pattern in m.patterns), default=0) for m in candidates}
    return {name: length for name, length in runs.items() if length}


def names_any2all(text: str) -> bool:
    """Whether a name or DICOM text says that Any2all has made the image, as all that it makes does in Slicer."""
    return bool(_ANY2ALL.search(text))


def _is_std_file(name: str, stack: Sequence[ModalityInfo]) -> bool:
    """Whether a volume is called as the server's file of an uncertainty: ``CT_std``.

    Only in this very spelling: the kernel of a CT scanner is called STD, as in "CT HEAD STD".
    """
    names = "|".join(re.escape(modality.name) for modality in stack)
    return bool(re.search(rf"(?<![A-Za-z0-9])(?:{names})_std{_SLICERS_ENDING}$", _SUFFIX.sub("", name)))


def _texts(volume: VolumeInfo) -> list[str]:
    """Name and DICOM texts, the surest first, every separator an underscore; last the name with its words apart.

    The last is for names such as ``MRBrainT1`` of Slicer's sample data.
    """
    name = _SUFFIX.sub("", volume.name)
    if name.startswith("sub-"):
        name = _BIDS_SPACE.sub("", name)
    written = [name, *(str(volume.dicom.get(tag) or "") for tag in TEXT_TAGS), _WORD_BEGINS.sub("_", name)]
    texts = [re.sub(r"[^\w*]+|_+", "_", text).strip("_") for text in written]
    return [text if _WITH_AND_WITHOUT.search(text) else _WITHOUT_CONTRAST.sub("_", text) for text in texts]


def _token_run(pattern: str, text: str) -> int:
    found = re.search(rf"(?:^|[_\-. ])({pattern})(?=$|[_\-. ])", text, re.IGNORECASE)
    return len(found.group(1)) if found else 0


def _possible(modality: ModalityInfo, volume: VolumeInfo, texts: Sequence[str]) -> bool:
    """Nothing speaks against it: neither the kind of scanner, nor a word, nor a contrast agent."""
    tag = str(volume.dicom.get("Modality") or "").upper()
    if tag and KIND_OF_TAG.get(tag) != modality.kind:
        return False
    if any(_token_run(pattern, text) for pattern in modality.not_patterns for text in texts):
        return False
    if modality.kind != "MR" and any(_SYNTHETIC.search(text) for text in texts):
        return False
    return not (modality.not_patterns and _has_contrast_agent(volume))


def _has_contrast_agent(volume: VolumeInfo) -> bool:
    agent = str(volume.dicom.get("ContrastBolusAgent") or "").strip().lower()
    return agent not in ("", "none", "no", "n", "false", "0")


def _by_measurement(volume: VolumeInfo, candidates: Sequence[ModalityInfo]) -> str | None:
    """The modality that scanner and sequence timing stand for, where it is one of ``candidates``."""
    names = [m.name for m in candidates]
    tag = str(volume.dicom.get("Modality") or "").upper()
    if tag in ("CT", "PT"):
        return names[0] if len(names) == 1 else None
    name = _mr_contrast(volume.dicom) if tag == "MR" else None
    return name if name in names else None


def _mr_contrast(dicom: Mapping[str, Any]) -> str | None:
    """Weighting from ScanningSequence and TE, TI, TR in ms (usual ranges at 1.5 T and 3 T); None where unclear."""
    sequence = set(re.split(r"[\\/,;\s]+", str(dicom.get("ScanningSequence") or "").upper())) - {""}
    te, ti, tr = (_number(dicom.get(key)) for key in ("EchoTime", "InversionTime", "RepetitionTime"))
    if te is None or tr is None or "EP" in sequence:
        return None
    if ti and ti >= 1500:
        return "T2FLAIR" if te >= 60 else None
    if ti:
        return "T1" if 350 <= ti <= 1300 and te <= 30 else None
    if "GR" in sequence:
        return "T2star" if te >= 12 else "T1" if te <= 8 and tr <= 50 else None
    if te >= 70 and tr >= 2000:
        return "T2"
    return "T1" if te <= 30 and 250 <= tr <= 1000 else None


def _number(value: Any) -> float | None:
    try:
        return float(str(value).split("\\")[0])
    except ValueError:
        return None
