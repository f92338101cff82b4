"""What the presets cost on the demonstration study, as ratios to the paper's sampler in the same run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from ..diffusion.prior import NetworkPrior
from ..frame import expected_shape, lay_frame, measure
from ..inputs import aligned, read_inputs
from ..physics.measurements import Measurements
from ..samplers import Problem, build_sampler
from ..samplers.noise import VolumeNoise
from ..scores.text import markdown_table
from ..study import SamplerSettings, StudySpec, resolve_sampler
from ..study.presets import PRESETS

MDS_STEPS = 150


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The measurements as Markdown, each beside the first one."""
    base = rows[0]["seconds"]
    header = ("sampler", "samples", "network passes a slice", "seconds a slice", f"ratio to {rows[0]['name']}")
    cells = []
    for row in rows:
        each, ratio = row["seconds"] / row["slices"], row["seconds"] / base
        cells.append((row["name"], str(row["samples"]), str(row["passes"]), f"{each:.2f}", f"{ratio:.2f}"))
    return markdown_table(header, cells)


def contestants(spec: StudySpec, prior: NetworkPrior) -> dict[str, SamplerSettings]:
    """One sample of mds first, then the presets as they are; a ``shared`` prior has no presets."""
    paper = spec.sampler.model_copy(update={"name": "mds", "steps": MDS_STEPS, "samples": 1})
    found = {f"mds-{MDS_STEPS}": resolve_sampler(replace(spec, sampler=paper), prior.noise_levels)}
    if prior.noise_levels == "per_modality":
        for preset in PRESETS:
            found[preset] = resolve_sampler(replace(spec, preset=preset), prior.noise_levels)
    return found


def some_slices(spec: StudySpec, prior: NetworkPrior, slices: int) -> tuple[Measurements, tuple[int, int, int, int]]:
    """The study's measurements on its middle slices, and the shape (Z, M, H, W) of their stack."""
    inputs = aligned(read_inputs(spec, prior.stack), spec, prior.stack, 0)
    frame = lay_frame(inputs, prior.card)
    shape = expected_shape(frame, prior)
    first = max((shape[0] - slices) // 2, 0)
    chosen = torch.arange(first, min(first + slices, shape[0]))
    return measure(inputs, frame, prior.stack).select(chosen), (len(chosen), *shape[1:])


def timed(
    name: str,
    settings: SamplerSettings,
    measured: Measurements,
    shape: tuple[int, int, int, int],
    prior: NetworkPrior,
    spec: StudySpec,
) -> dict[str, Any]:
    """Seconds of one sampler for all its samples of all slices, after a first step that nobody is charged for.

    The problem is made anew, so that nobody uses an eigenbasis that another one paid for.
    """

    def draw(steps: int, samples: int) -> int:
        passes = [0]
        build_sampler(replace(settings, steps=steps), prior.stack, spec.outputs, prior.mean_network).sample(
            prior,
            Problem.of(measured, shape),
            VolumeNoise(shape[1:], settings.seed, spec.subject),
            samples=samples,
            device=prior.device,
            progress=lambda done, total: passes.append(done),
        )
        return passes[-1] // shape[0]

    draw(1, 1)
    started = time.perf_counter()
    passes = draw(settings.steps, settings.samples)
    seconds = round(time.perf_counter() - started, 3)
    return {"name": name, "samples": settings.samples, "slices": shape[0], "passes": passes, "seconds": seconds}
