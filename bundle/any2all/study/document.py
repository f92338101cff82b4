"""The study as a JSON document (contract 1): pydantic models, JSON Schema, and complaints in words."""

from __future__ import annotations

import copy
import json
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import Any2allError
from ..stack import Stack

DegradedStatus = Literal["noisy", "blurred", "lowres"]
Status = Literal["available", "undersampled", "noisy", "blurred", "lowres", "missing"]
IMAGE_STATUSES = ("available", "noisy", "blurred", "lowres", "missing")  # of a modality that is never raw data
Millimetres = Annotated[float, Field(gt=0, le=100)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Simulation(_Document):
    """Retrospective undersampling of a given image; ``noise_std`` is complex and in u units."""

    acceleration: int = Field(4, ge=1, le=64)
    acs_lines: int = Field(0, ge=0, le=1024, description="fully sampled lines in the centre of k-space")
    coils: int = Field(8, ge=1, le=128)
    noise_std: float = Field(0.01, gt=0, le=1)
    seed: Seed = 0
    mask: Literal["equispaced", "random", "poisson", "radial", "spiral"] = "equispaced"
    phase: Literal["none", "smooth"] = "none"


class ModalityDocument(_Document):
    """One modality of a study document."""

    status: Status
    file: str | None = Field(None, description="image file, relative to the study's folder")
    kspace: str | None = Field(
        None,
        description="raw data, relative to the study's folder: .h5, .mrd, .npy, .npz, or one of a .cfl and .hdr pair",
    )
    coil_maps: str | None = Field(None, description="coil sensitivities that belong to kspace; default: estimated")
    trajectory: str | None = Field(
        None,
        description="where radial or spiral kspace was sampled, when its file does not say: (spokes, samples, "
        "2) in cycles per field of view along (H, W)",
    )
    noise_std: float | None = Field(
        None,
        gt=0,
        description="noise std in the file's units: complex of kspace, real of a noisy, blurred or lowres image; "
        "default: estimated",
    )
    psf_fwhm_mm: Millimetres | Annotated[list[Millimetres], Field(min_length=3, max_length=3)] | None = Field(
        None,
        description="width of a blurred image's point-spread function at half maximum: one number, or three along "
        "left-right, anterior-posterior, superior-inferior",
    )
    slice_profile: Literal["box", "gaussian"] | None = Field(
        None, description="of a lowres image's slices, as wide as they are apart; default: box"
    )
    voxel_size_mm: Annotated[list[Millimetres], Field(min_length=3, max_length=3)] | None = Field(
        None, description="(H, W, slice) of kspace that carries no geometry"
    )
    geometry: Literal["header", "reference"] | None = Field(
        None,
        description="where kspace lies: as its file says (default), or along the axes and about the centre of the "
        "reference image, as it does where the file says nothing",
    )
    orientation: str | None = Field(
        None,
        pattern=r"^[RLAPSI]{3}$",
        description="where slice, H and W of kspace grow to, when its file says nothing; default: SPL; sagittal slices "
        "may be LSP",
    )
    simulate: Simulation | None = None


class SamplerDocument(_Document):
    """What the study says about the sampler; anything left out comes from the preset."""

    name: Literal["mps", "mds", "mcs", "cdm"] | None = None
    steps: int | None = Field(None, ge=1, le=1000)
    samples: int | None = Field(None, ge=1, le=1000)
    seed: Seed | None = None
    eta: float | None = Field(None, ge=0, le=1)
    eta_convention: Literal["dds", "ddim"] | None = None
    zeta: float | None = Field(None, gt=0)
    gamma: float | None = Field(None, gt=0)
    weights: dict[str, Annotated[float, Field(ge=0)]] | None = Field(None, description="per modality, for mps")
    faithful: bool | None = None
    consistency: Literal["calibrated", "moment"] | None = None
    centre: float | None = Field(
        None,
        ge=0,
        le=1,
        description="mcs, several samples of a missing modality: how far their mean is moved (all of them by the same "
        "image) to the posterior mean that the network states in one pass; with one step, how far "
        "its estimate is moved to what the network for means states; 0: not at all",
    )


class StudyDocument(_Document):
    """Contract 1, version 1, as JSON."""

    version: Literal[1] = 1
    subject: str = Field("subject", pattern=r"^[A-Za-z0-9][A-Za-z0-9._ -]*$", max_length=64)
    modalities: dict[str, ModalityDocument] = Field(default_factory=dict)
    reference: str | None = None
    registration: Literal["rigid", "none"] = "rigid"
    outputs: list[str] | None = None
    preset: Literal["fast", "balanced", "best"] = "balanced"
    sampler: SamplerDocument = SamplerDocument()
    save_samples: bool = False


def study_json_schema(stack: Stack) -> dict[str, Any]:
    """The JSON Schema of a study of this stack (served to clients): contract 1 with the stack's names filled in."""
    schema = StudyDocument.model_json_schema()
    names = list(stack.names)
    properties, definitions = schema["properties"], schema["$defs"]
    never_raw = copy.deepcopy(definitions["ModalityDocument"])
    never_raw["properties"]["status"]["enum"] = list(IMAGE_STATUSES)
    definitions["ImageOnlyModalityDocument"] = never_raw
    which = {n: "ModalityDocument" if stack[n].raw_data else "ImageOnlyModalityDocument" for n in names}
    properties["modalities"]["properties"] = {n: {"$ref": f"#/$defs/{d}"} for n, d in which.items()}
    properties["modalities"]["additionalProperties"] = False
    properties["reference"]["anyOf"][0]["enum"] = names
    properties["outputs"]["anyOf"][0]["items"]["enum"] = names
    definitions["SamplerDocument"]["properties"]["weights"]["anyOf"][0]["propertyNames"] = {"enum": names}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Any2all study"}


def validated(document: Any) -> StudyDocument:
    """A document with types and ranges checked. Raises one Any2allError with pydantic's complaint in words."""
    if not isinstance(document, dict):
        raise Any2allError("a study is a JSON object", key="study", value=type(document).__name__)
    try:
        return StudyDocument.model_validate(document)
    except ValidationError as error:
        raise _in_words(error) from None


def _in_words(error: ValidationError) -> Any2allError:
    """The first of pydantic's complaints as one sentence; what is allowed is read from the schema."""
    first, more = error.errors(include_url=False)[0], error.error_count() - 1
    schema = _schema()
    path, kind, value = _study_path(schema, first["loc"]), first["type"], first["input"]
    hint = f"{more} more problem{'s' * (more > 1)} in this study" if more else None
    if kind == "extra_forbidden":
        return Any2allError(
            "unknown key",
            key=".".join(path),
            value=_short(value),
            allowed=list(_at(schema, path[:-1]).get("properties", {})),
            hint=hint,
        )
    if kind == "missing":
        return Any2allError("this key is required", key=".".join(path), allowed=_allowed(_at(schema, path)), hint=hint)
    return Any2allError(
        "this value cannot be used",
        key=".".join(path),
        value=_short(value),
        allowed=_allowed(_at(schema, path)),
        hint=hint,
    )


@cache
def _schema() -> dict[str, Any]:
    return StudyDocument.model_json_schema()


def _study_path(schema: dict[str, Any], location: tuple[str | int, ...]) -> list[str]:
    """The study's own keys of pydantic's location, which goes on with other names where several kinds may stand."""
    path = [str(part) for part in location]
    for length in range(1, len(path)):
        if "anyOf" in _at(schema, path[:length]):
            return path[:length]
    return path


def _short(value: Any) -> Any:
    """A value to print: numbers and words as they are, everything else cut to a line."""
    if isinstance(value, (bool, int, float)):
        return value
    text = value if isinstance(value, str) else json.dumps(value, default=repr)
    return text if len(text) <= 80 else text[:77] + "..."


def _at(root: dict[str, Any], path: list[str]) -> dict[str, Any]:
    """The part of the JSON Schema that describes the value at ``path``."""
    node = _resolved(root, root)
    for part in path:
        inner = node.get("properties", {}).get(part) or node.get("additionalProperties") or node.get("items") or {}
        node = _resolved(root, inner if isinstance(inner, dict) else {})
    return node


def _resolved(root: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    choices = [choice for choice in node.get("anyOf", []) if choice.get("type") != "null"]
    node = choices[0] if len(choices) == 1 else node
    return root["$defs"][node["$ref"].rsplit("/", 1)[-1]] if "$ref" in node else node


def _allowed(node: dict[str, Any]) -> Any:
    """Words for a schema node: the choices, or the type with its range."""
    choices = node.get("enum") or ([node["const"]] if "const" in node else None)
    if choices:
        return choices
    if "anyOf" in node:
        return ", or ".join(_allowed(choice) for choice in node["anyOf"] if choice.get("type") != "null")
    if "RLAPSI" in node.get("pattern", ""):
        return "three of the letters R, L, A, P, S, I, such as SPL"
    if "pattern" in node:
        return "letters, digits, '.', '_', '-' and blanks, a letter or digit first, at most 64"
    if node.get("type") == "array" and "minItems" in node:
        return f"a list of {node['minItems']} of: {_allowed(node['items'])}"
    names = {
        "integer": "an integer",
        "number": "a number",
        "string": "a text",
        "boolean": "true or false",
        "array": "a list",
        "object": "an object",
    }
    bounds = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most"}
    limits = [
        f"{word} {node[bound]:g}" if node[bound] < 1e6 else f"{word} {node[bound]}"
        for bound, word in bounds.items()
        if bound in node
    ]
    return " ".join([names.get(node.get("type", ""), "another value"), " and ".join(limits)]).strip()
