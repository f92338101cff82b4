"""The study: which modality is available, undersampled or missing, and its files (contract 1).

`StudyDocument` is the JSON document as it is written; `parse_study` checks it against a stack and a folder and
returns a `StudySpec`, in which every modality of the stack has an entry, every path is resolved and every default
is filled in. Whatever cannot be used is refused by one `Any2allError` that names key, value and what is allowed.
"""

from .asked import asked_of
from .document import ModalityDocument, SamplerDocument, Simulation, StudyDocument, study_json_schema
from .presets import SamplerSettings, for_coupled_slices, ignored_keys, resolve_sampler
from .spec import ModalitySpec, StudySpec, load_study, parse_study, read_document

__all__ = [
    "ModalityDocument",
    "ModalitySpec",
    "SamplerDocument",
    "SamplerSettings",
    "Simulation",
    "StudyDocument",
    "StudySpec",
    "asked_of",
    "for_coupled_slices",
    "ignored_keys",
    "load_study",
    "parse_study",
    "read_document",
    "resolve_sampler",
    "study_json_schema",
]
