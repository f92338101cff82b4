"""The training stream and the demonstration study."""

from __future__ import annotations

import itertools
import json

import nibabel as nib
import numpy as np
import pytest
import torch
from any2all.phantom import RenderedHeads, load_head_labels
from any2all.phantom.dataset import BELOW_BRAIN_MM, draw_grid
from any2all.phantom.demo_study import STEPS, write_demo_study
from any2all.training.stream import BatchStream, HeadPool, TrainingSlices


@pytest.fixture(scope="module")
def label_file(head, tmp_path_factory):
    """The head as a file in another orientation and as float, as some real maps are."""
    file = tmp_path_factory.mktemp("labels") / "one.nii.gz"
    image = nib.as_closest_canonical(nib.Nifti1Image(head.labels.astype(np.float32), head.affine))
    nib.save(image, file)
    return file


def test_label_maps_are_reoriented_by_their_affine(label_file, head) -> None:
    read = load_head_labels(label_file)
    assert np.array_equal(read.labels, head.labels) and np.allclose(read.affine, head.affine)
    assert read.labels.dtype == np.int16 and read.name == "one"


def test_slices_are_in_the_priors_range_and_complete(label_file, stack) -> None:
    items = list(itertools.islice(RenderedHeads([label_file], stack, (40, 32), (5.6, 5.6), seed=1), 60))
    images = torch.stack([item["image"] for item in items])
    assert images.shape == (60, len(stack), 40, 32) and images.dtype == torch.float32
    assert float(images.min()) == -1.0 and 0.3 < float(images.max()) <= 1.0
    assert all(item["present"].dtype == torch.bool and bool(item["present"].all()) for item in items)
    assert images.flatten(1).std(dim=1).min() > 0.01


def test_the_stream_repeats_by_seed(label_file, stack) -> None:
    def first(seed: int) -> torch.Tensor:
        stream = RenderedHeads([label_file], stack, (40, 32), (5.6, 5.6), seed=seed)
        return torch.stack([item["image"] for item in itertools.islice(stream, 12)])

    assert torch.equal(first(4), first(4)) and not torch.equal(first(4), first(5))


def test_the_head_fills_three_quarters_at_its_percentile(label_file, stack) -> None:
    heads = RenderedHeads([label_file], stack, (40, 32), (5.6, 5.6), seed=2)
    u = (heads.subject(0).images[:, stack.index("T1")] + 1) / 2
    assert 0.6 < float(torch.quantile(u[u > 0.05], 0.99)) < 0.8


def test_a_twin_differs_in_pet_alone(label_file, stack) -> None:
    heads = RenderedHeads([label_file], stack, (40, 32), (5.6, 5.6), seed=2)
    pet = stack.index("PET")
    for number in range(6):
        subject = heads.subject(number)
        others = [m for m in range(len(stack)) if m != pet]
        assert torch.equal(subject.images[:, others], subject.twin[:, others])
        negative, positive = (subject.images, subject.twin)
        if subject.parameters.amyloid_positive:
            negative, positive = positive, negative
        assert float((positive[:, pet] - negative[:, pet]).mean()) > 0.005
        assert torch.equal(positive[:, pet] == -1, negative[:, pet] == -1) or not subject.parameters.skull_stripped


def test_slices_cover_the_brain_and_what_lies_below() -> None:
    for seed in range(20):
        grid = draw_grid(np.random.default_rng(seed), (-60.0, 70.0), (80, 64), (2.8, 2.8))
        steps = np.diff(grid.slice_positions_mm)
        assert 3.0 <= steps.min() and steps.max() <= 5.0 + 1e-6
        assert grid.slice_positions_mm[0] <= -60 - BELOW_BRAIN_MM + 5 and grid.slice_positions_mm[-1] >= 70 - 5
        assert 0.88 * 2.8 <= grid.spacing_mm[0] <= 1.12 * 2.8


def test_slices_are_thin_and_thick_whatever_their_distance() -> None:
    grids = [draw_grid(np.random.default_rng(seed), (-60.0, 70.0), (80, 64), (2.8, 2.8)) for seed in range(400)]
    thickness = np.array([grid.slice_thickness_mm for grid in grids])
    steps = np.array([np.diff(grid.slice_positions_mm)[0] for grid in grids])
    assert 1.0 <= thickness.min() < 1.1 and 4.9 < thickness.max() <= 5.0
    assert (thickness > 3).mean() == pytest.approx(0.5, abs=0.08)
    assert abs(np.corrcoef(thickness, steps)[0, 1]) < 0.15


def test_a_stream_that_begins_later_renders_the_same_batches(label_file, stack) -> None:
    def slices() -> TrainingSlices:
        heads = RenderedHeads([label_file], stack, (40, 32), (5.6, 5.6), seed=3).prepared(workers=2)
        return TrainingSlices(HeadPool(heads, size=2, reuse=0.2), None, 0.0, stack, seed=3)

    whole, resumed = BatchStream(slices(), 4), BatchStream(slices(), 4, start=3)
    for number, later in zip(range(3, 5), resumed):
        assert torch.equal(whole.batch(number)["image"], later["image"]) and bool(later["present"].all())


def test_the_demo_study_says_what_it_holds(head, stack, tmp_path) -> None:
    rendering = write_demo_study(head, 7, tmp_path, stack)
    study = json.loads((tmp_path / "study.json").read_text())
    assert study["modalities"]["T2FLAIR"]["simulate"]["acceleration"] == 4 and study["outputs"] == [
        "T2FLAIR",
        "CT",
        "PET",
    ]
    for name in ("T1", "T2star", "T2FLAIR"):
        assert (tmp_path / study["modalities"][name]["file"]).is_file()
    for name in ("T2FLAIR", "CT", "PET", "T2"):
        image = nib.load(tmp_path / "truth" / f"{name}.nii.gz")
        assert nib.aff2axcodes(image.affine) == ("R", "A", "S") and image.get_data_dtype() == np.int16
        # Voxel (z, h, w) of the rendering and its place in the file hold the same value at the same point.
        point = rendering.affine @ np.array([3, 50, 60, 1.0])
        x, y, z = np.rint(np.linalg.inv(image.affine) @ point)[:3].astype(int)
        step = STEPS.get(name) or float(rendering.images[:, stack.index(name)].max()) / 4095
        assert image.get_fdata()[x, y, z] == pytest.approx(
            float(rendering.images[3, stack.index(name), 50, 60]), abs=step
        )
    assert json.loads((tmp_path / "truth" / "rendering.json").read_text())["seed"] == 7
