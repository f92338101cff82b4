"""The study store as MONAI Label's datastore: an image is a subject, a label is one set of its results. Read only."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NoReturn

from any2all.errors import Any2allError
from any2all.studies import StudyFolder
from monailabel.interfaces.datastore import Datastore


class StudyDatastore(Datastore):
    """What MONAI Label asks of a datastore, answered from a `StudyFolder`. Nothing can be written through it."""

    def __init__(self, studies: StudyFolder) -> None:
        self.studies = studies

    def name(self) -> str:
        return "studies"

    def set_name(self, name: str) -> NoReturn:
        _refuse()

    def description(self) -> str:
        return "One folder per subject, modality files named by the stack's patterns"

    def set_description(self, description: str) -> NoReturn:
        _refuse()

    def datalist(self) -> list[dict[str, Any]]:
        return [{"image": name, **self.get_image_info(name)} for name in self.list_images()]

    def list_images(self) -> list[str]:
        return self.studies.subjects()

    def get_image(self, image_id: str, params: Any = None) -> Path:
        return self.studies.folder(image_id)

    def get_image_uri(self, image_id: str) -> str:
        return str(self.studies.folder(image_id))

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """Modalities with their status, and why the subject cannot be filled, if so."""
        self.studies.folder(image_id)
        return {"modalities": self.studies.modalities(image_id), "problem": self.studies.problem(image_id)}

    def get_labels_by_image_id(self, image_id: str) -> dict[str, str]:
        return {label: image_id for label in self.studies.results(image_id)}

    def get_label_by_image_id(self, image_id: str, tag: str) -> str:
        return image_id if tag in self.studies.results(image_id) else ""

    def get_label(self, label_id: str, label_tag: str, params: Any = None) -> Path:
        return self.studies.results_folder(label_id, label_tag)

    def get_label_uri(self, label_id: str, label_tag: str) -> str:
        return str(self.studies.results_folder(label_id, label_tag))

    def get_label_info(self, label_id: str, label_tag: str) -> dict[str, Any]:
        folder = self.studies.results_folder(label_id, label_tag)
        files = [p for p in folder.rglob("*") if p.is_file() and os.path.realpath(p) == str(p)]  # no links
        return {"files": sorted(p.relative_to(folder).as_posix() for p in files)}

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        return [name for name in self.list_images() if self._labelled(name, label_tag)]

    def get_unlabeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        return [name for name in self.list_images() if not self._labelled(name, label_tag)]

    def refresh(self) -> None:
        """The folder is read anew at every question."""

    def status(self) -> dict[str, Any]:
        images = self.list_images()
        labelled = [name for name in images if self._labelled(name, None)]
        tags: dict[str, int] = {}
        for name in labelled:
            for tag in self.studies.results(name):
                tags[tag] = tags.get(tag, 0) + 1
        return {"total": len(images), "completed": len(labelled), "label_tags": tags}

    def json(self) -> dict[str, Any]:
        """Everything, in the shape of MONAI Label's own listing."""
        objects = {}
        for name in self.list_images():
            labels = {tag: {"ext": "", "info": self.get_label_info(name, tag)} for tag in self.studies.results(name)}
            image = {"ext": "", "info": self.get_image_info(name)}
            objects[name] = {"image": image, "labels": labels}
        return {"name": self.name(), "description": self.description(), "objects": objects}

    def _labelled(self, name: str, tag: str | None) -> bool:
        results = self.studies.results(name)
        return tag in results if tag else bool(results)

    def get_dataset_archive(self, limit_cases: int | None) -> NoReturn:
        _refuse()

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> NoReturn:
        _refuse()

    def remove_image(self, image_id: str) -> NoReturn:
        _refuse()

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> NoReturn:
        _refuse()

    def remove_label(self, label_id: str, label_tag: str) -> NoReturn:
        _refuse()

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> NoReturn:
        _refuse()

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> NoReturn:
        _refuse()


def _refuse() -> NoReturn:
    raise Any2allError("the study store is read only for clients", key="datastore", code="forbidden")
