"""A folder of studies, one folder for each subject.

A subject's folder holds a ``study.json``, or just its files, told apart by the stack's name patterns. Results that are
kept beside them lie in folders ``any2all-<label>`` and are never taken for inputs. Names come from outside: none leads
out of the folder, whatever links lie in it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from .errors import Any2allError
from .output.volumes import is_result
from .output.write import SUMMARY
from .stack import Stack
from .study import parse_study, read_document
from .study.document import StudyDocument, validated
from .study.files import IMAGE_SUFFIXES, RESULTS, files_by_modality, several_files
from .study.spec import KSPACE_SUFFIXES

STUDY = "study.json"
_LABEL = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SHOWN = 80  # characters of a refused name in an error


class StudyFolder:
    """The subjects of a folder, their studies, and the results that lie beside them.

    Args:
        root: the folder; every direct subfolder whose name a study's ``subject`` can be is a subject.
        stack: tells the files of a subject apart.

    Raises:
        Any2allError: there is no such folder.
    """

    def __init__(self, root: str | Path, stack: Stack) -> None:
        if not Path(root).is_dir():
            raise Any2allError("there is no such folder", key="studies", value=str(root))
        self.root, self.stack = Path(os.path.realpath(root)), stack

    def subjects(self) -> list[str]:
        """Names of all subjects, sorted. Folders that are hidden, linked from elsewhere or misnamed are left out."""
        try:
            names = os.listdir(self.root)
        except OSError as error:
            message = f"the folder of studies cannot be read: {error.strerror}"
            raise Any2allError(message, key="studies", code="storage") from None
        return sorted(name for name in names if self._found(name) is not None)

    def folder(self, subject: str) -> Path:
        """Real path of a subject's folder, inside the root. Raises Any2allError (``unknown_subject``)."""
        found = self._found(subject)
        if found is None:
            raise Any2allError("there is no such subject", key="subject", value=_cut(subject), code="unknown_subject")
        return found

    def document(self, subject: str) -> dict[str, Any]:
        """The subject's study document (contract 1), its paths relative to `folder`, its subject the folder's name.

        It is the ``study.json`` where there is one, else made from the files: images are ``available``, raw data is
        ``undersampled``. `parse_study` with `folder` checks it.

        Raises:
            Any2allError: no such subject, a ``study.json`` that is no JSON object, several files for one modality.
        """
        folder = self.folder(subject)
        if not os.path.lexists(folder / STUDY):
            return folder_document(folder, self.stack, subject)
        if not (folder / STUDY).is_file() or not _inside(folder / STUDY, folder):
            raise Any2allError("the study file is no file in the subject's folder", key="study", value=STUDY)
        document = read_document(folder / STUDY, STUDY)
        if not isinstance(document, dict):
            raise Any2allError("a study is a JSON object", key="study", value=type(document).__name__)
        return {**document, "subject": subject}

    def image(self, subject: str, modality: str) -> Path:
        """The image file of one modality, inside the subject's folder. Raises Any2allError (``not_found``)."""
        spec = parse_study(self.document(subject), self.stack, self.folder(subject))
        files = {name: m.file for name, m in spec.modalities.items() if m.file is not None}
        if modality not in files:
            raise Any2allError(
                "this subject has no such image",
                key="image",
                value=_cut(modality),
                allowed=list(files),
                code="not_found",
            )
        return files[modality]

    def modalities(self, subject: str) -> dict[str, str]:
        """Status of each modality of the stack; empty where the study cannot be read at all (see `problem`)."""
        try:
            given = self._checked(subject).modalities
        except (Any2allError, OSError):
            return {}
        return {name: given[name].status if name in given else "missing" for name in self.stack.names}

    def problem(self, subject: str) -> str | None:
        """Why the subject cannot be filled, in one line without this machine's paths; None when nothing is known.

        The images themselves are read only when it is filled.
        """
        try:
            parse_study(self.document(subject), self.stack, self.folder(subject))
        except Any2allError as error:
            return error.sentence()
        except OSError as error:
            return f"the subject's files cannot be read: {error.strerror}"
        return None

    def results(self, subject: str) -> list[str]:
        """Labels of finished results, sorted. Raises Any2allError (``unknown_subject``)."""
        names = [path.parent.name for path in self.folder(subject).glob(f"{RESULTS}-*/{SUMMARY}")]
        labels = [name.removeprefix(f"{RESULTS}-") for name in names]
        return sorted(label for label in labels if self._results_path(subject, label) is not None)

    def results_folder(self, subject: str, label: str) -> Path:
        """Where results of this label lie or will lie; the folder need not exist.

        Raises:
            Any2allError: no such subject, or a label that cannot be used.
        """
        path = self._results_path(subject, label)
        if path is None:
            raise Any2allError(
                "results cannot be kept under this label",
                key="label",
                value=_cut(label),
                allowed="letters, digits, '.', '_' and '-', at most 64, not dots alone",
                code="invalid_label",
            )
        return path

    def _found(self, subject: str) -> Path | None:
        """Real path of a subject's folder; None for a name that is none, is refused, or leads elsewhere."""
        try:
            validated({"subject": subject})
        except Any2allError:
            return None
        path = Path(os.path.realpath(self.root / subject))
        return path if path.is_dir() and path != self.root and _inside(path, self.root) else None

    def _results_path(self, subject: str, label: str) -> Path | None:
        if not isinstance(label, str) or not _LABEL.fullmatch(label) or not label.strip("."):
            return None
        path = self.folder(subject) / f"{RESULTS}-{label}"
        return path if Path(os.path.realpath(path)) == path else None

    def _checked(self, subject: str) -> StudyDocument:
        return validated(self.document(subject))


def folder_document(folder: Path, stack: Stack, subject: str) -> dict[str, Any]:
    """A study document (contract 1) of a folder's files: images are ``available``, raw data is ``undersampled``.

    Raises Any2allError for several files of one modality.
    """
    found, _ = files_by_modality(folder, stack, IMAGE_SUFFIXES + KSPACE_SUFFIXES)
    modalities = {}
    for name, files in found.items():
        measured = [file for file in files if not _inside(file, folder) or not is_result(file)]
        if len(measured) > 1:
            message, hint = several_files(folder, measured), "remove all but one, or name one in a study.json"
            raise Any2allError(message, key=f"modalities.{name}", hint=hint)
        for file in measured:
            status, key = _entry(file)
            modalities[name] = {"status": status, key: file.relative_to(folder).as_posix()}
    return {"version": 1, "subject": subject, "modalities": modalities}


def _entry(file: Path) -> tuple[str, str]:
    """The status of a modality that a file gives, and the key of the study that names the file."""
    raw = file.name.lower().endswith(KSPACE_SUFFIXES)
    return ("undersampled", "kspace") if raw else ("available", "file")


def _inside(path: Path, folder: Path) -> bool:
    """Whether a path lies in a folder (a real path) when links are followed."""
    return Path(os.path.realpath(path)).is_relative_to(folder)


def _cut(name: Any) -> Any:
    return name[:_SHOWN] if isinstance(name, str) else type(name).__name__
