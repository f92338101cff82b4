"""What a rendering must show, whatever its seed."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from any2all.errors import Any2allError
from any2all.phantom import HeadLabels, HeadParameters, RenderGrid, draw_parameters, load_head_labels, render
from any2all.phantom.anatomy import anatomy_of, brain_extent_mm
from any2all.stack import Stack


def _mean(rendering, channel: int, *codes: int) -> float:
    inside = torch.isin(rendering.labels, torch.tensor(codes, dtype=rendering.labels.dtype))
    return float(rendering.images[:, channel][inside].median())


@pytest.mark.parametrize("seed", range(6))
def test_contrast_has_the_order_that_radiologists_know(seed, head, grid, stack, plain) -> None:
    drawn = draw_parameters(seed)
    drawn = replace(
        drawn, pose=plain.pose, lesions=plain.lesions, skull_stripped=False, mr_bias=dict.fromkeys(drawn.mr_bias, 0.0)
    )
    rendering = render(head, drawn, grid, stack)
    groups = {"w": (2, 41), "g": (3, 42), "f": (4, 43), "p": (13, 52), "b": (515,)}
    value = {
        name: {key: _mean(rendering, m, *codes) for key, codes in groups.items()} for m, name in enumerate(stack.names)
    }
    assert value["T1"]["w"] > value["T1"]["g"] > value["T1"]["f"]
    assert value["T2"]["f"] > value["T2"]["g"] > value["T2"]["w"]
    assert value["T2FLAIR"]["g"] > value["T2FLAIR"]["w"] > value["T2FLAIR"]["f"]
    assert value["T2star"]["f"] > value["T2star"]["g"] > value["T2star"]["w"] > value["T2star"]["p"]
    assert all(value[name]["b"] < 0.6 * value[name]["w"] for name in ("T1", "T2", "T2FLAIR", "T2star"))
    assert value["CT"]["b"] > 300 and 25 < value["CT"]["w"] < value["CT"]["g"] + 2 < 50 and value["CT"]["f"] < 20
    if not drawn.amyloid_positive:
        assert value["PET"]["w"] > 1.15 * value["PET"]["g"]


def test_equal_parameters_give_equal_images_and_another_seed_does_not(head, grid, stack, plain) -> None:
    first, again = render(head, plain, grid, stack), render(head, plain, grid, stack)
    assert torch.equal(first.images, again.images) and torch.equal(first.labels, again.labels)
    other = render(head, replace(plain, seed=plain.seed + 1), grid, stack)
    assert not torch.equal(first.images, other.images)
    assert draw_parameters(12) == draw_parameters(12) != draw_parameters(13)
    assert json.loads(json.dumps(first.parameters))["amyloid_positive"] == plain.amyloid_positive


def test_amyloid_status_changes_pet_alone(head, grid, stack, plain) -> None:
    negative, positive = (render(head, replace(plain, amyloid_positive=s), grid, stack) for s in (False, True))
    pet = stack.index("PET")
    others = [m for m in range(len(stack)) if m != pet]
    assert torch.equal(negative.images[:, others], positive.images[:, others])
    assert _mean(positive, pet, 3, 42) > 1.2 * _mean(negative, pet, 3, 42)


def test_amyloid_status_cannot_be_read_off_the_other_draws() -> None:
    drawn = [draw_parameters(seed) for seed in range(400)]
    status = np.array([p.amyloid_positive for p in drawn], dtype=float)
    assert 0.4 < status.mean() < 0.6
    for visible in (lambda p: p.tissue_values["cortex"][0], lambda p: p.lesions.ms_count, lambda p: p.texture):
        assert abs(np.corrcoef(status, [visible(p) for p in drawn])[0, 1]) < 0.15


def test_ct_findings_change_ct_alone(head, grid, stack, plain) -> None:
    lesions = replace(plain.lesions, ct_findings=(("blood", 14.0, 70.0), ("calcification", 8.0, 300.0)))
    without, found = render(head, plain, grid, stack), render(head, replace(plain, lesions=lesions), grid, stack)
    ct = stack.index("CT")
    assert torch.equal(without.images[:, :ct], found.images[:, :ct])
    assert float((found.images - without.images)[:, ct].max()) > 20


def test_white_matter_lesions_are_bright_in_flair_and_dark_in_t1(head, grid, stack, plain) -> None:
    lesions = replace(plain.lesions, ms_count=25, ms_severity=1.0)
    change = render(head, replace(plain, lesions=lesions), grid, stack).images - render(head, plain, grid, stack).images
    flair = change[:, stack.index("T2FLAIR")]
    lesion = flair > 0.5 * flair.max()
    assert int(lesion.sum()) > 3
    assert float(change[:, stack.index("T1")][lesion].mean()) < 0 < float(change[:, stack.index("T2")][lesion].mean())
    assert float(change[:, stack.index("CT")][lesion].mean()) < 0


def test_skull_stripping_cuts_all_channels_alike(head, grid, stack, plain) -> None:
    images = render(head, replace(plain, skull_stripped=True), grid, stack)
    whole = render(head, plain, grid, stack)
    away = images.labels == 0
    air = torch.tensor([-1000.0 if m.kind == "CT" else 0.0 for m in stack.modalities])
    everywhere = images.images.movedim(1, -1)
    assert torch.equal(everywhere[away], air.expand(int(away.sum()), -1))
    brain = torch.isin(whole.labels, torch.tensor([2, 41, 3, 42, 4, 43], dtype=whole.labels.dtype))
    assert float((images.labels[brain] > 0).float().mean()) > 0.98
    assert torch.equal(images.images.movedim(1, -1)[~away], whole.images.movedim(1, -1)[~away])
    assert not bool(torch.isin(images.labels, torch.tensor([515, 507, 511, 506], dtype=torch.int16)).any())


@pytest.mark.parametrize("flip", [False, True])
def test_left_is_left_front_is_front_and_up_is_up(flip, head, grid, stack, plain) -> None:
    rendering = render(head, replace(plain, pose=replace(plain.pose, flip=flip)), grid, stack)
    for code, right, forward in ((2, -1, 0), (41, 1, 0), (506, 0, 1)):
        voxels = torch.nonzero(rendering.labels == code).double().mean(dim=0).numpy()
        x, y, z = (rendering.affine @ [*voxels, 1.0])[:3]
        assert x * right > 5 if right else abs(x) < 5
        assert y > 60 if forward else abs(y) < 30
    assert rendering.affine[2, 0] > 0 and rendering.affine[1, 1] < 0 and rendering.affine[0, 2] < 0
    cerebellum = torch.nonzero(rendering.labels == (47 if flip else 8)).double().mean(dim=0).numpy()
    assert (rendering.affine @ [*cerebellum, 1.0])[2] < -20


def test_flipping_mirrors_the_anatomy(head, stack, plain) -> None:
    one_sided = head.labels.copy()
    one_sided[(one_sided == 50) | (one_sided == 52)] = 41
    lopsided = HeadLabels(one_sided, head.affine, "lopsided")
    grid = RenderGrid((76, 64), (3.0, 3.0), (-8.0, 8.0), 3.0)
    for flip, code, right in ((False, 13, -1), (True, 52, 1)):
        labels = render(lopsided, replace(plain, pose=replace(plain.pose, flip=flip)), grid, stack).labels
        columns = torch.nonzero(labels == code)[:, 2].double()
        assert len(columns) and float(columns.mean() - 31.5) * right < 0
        assert not bool((labels == (52 if code == 13 else 13)).any())


def test_partial_volume_stays_between_its_tissues(head, stack, plain) -> None:
    """At the edge of ventricle and white matter, away from noise and texture, CT lies between their HU."""
    calm = replace(plain, texture=0.0, ct_noise_hu=0.0, ct_cupping_hu=0.0, ct_blur_px=0.0)
    grid = RenderGrid((18, 10), (3.0, 3.0), (0.0,), 3.0)
    rendering = render(head, calm, grid, stack)
    ct = rendering.images[:, stack.index("CT")]
    low, high = calm.tissue_values["ventricle"][4], calm.tissue_values["white_matter"][4]
    assert float(ct.min()) >= low - 0.01 and float(ct.max()) <= high + 0.01
    between = (ct > low + 0.1 * (high - low)) & (ct < high - 0.1 * (high - low))
    assert int(between.sum()) > 5, "no pixel holds two tissues"


def test_air_is_dark_and_minus_1000(head, grid, stack, plain) -> None:
    corner = render(head, plain, grid, stack).images[:, :, :5, :5]
    assert abs(float(corner[:, stack.index("CT")].mean()) + 1000) < 3
    white = plain.mr_scale["T1"] * 0.05
    assert float(corner[:, stack.index("T1")].mean()) < white


def test_refusals_name_what_is_wrong(head, grid, plain, stack, tmp_path) -> None:
    strange = head.labels.copy()
    strange[40, 40, 40] = 999
    with pytest.raises(Any2allError, match="label without a tissue.*999"):
        render(HeadLabels(strange, head.affine, "strange"), plain, grid, stack)
    renamed = stack.modalities[0].model_copy(update={"name": "ADC"})
    with pytest.raises(Any2allError, match="no rendering recipe.*ADC.*allowed: T1"):
        render(head, plain, grid, Stack(modalities=(renamed,)))
    with pytest.raises(Any2allError, match="not found"):
        load_head_labels(tmp_path / "absent.nii.gz")


def test_real_labels_render_as_heads(data_folder, stack) -> None:
    real = load_head_labels(data_folder / "head_labels" / "subject16.nii.gz")
    assert real.labels.shape == (256, 256, 256)
    eyes = np.argwhere(real.labels == 506).mean(axis=0)
    brain = np.argwhere(np.isin(real.labels, [2, 41])).mean(axis=0)
    left = np.argwhere(real.labels == 2).mean(axis=0)
    assert eyes[1] < brain[1] - 40 and eyes[0] < brain[0] and left[2] > brain[2] + 10
    low, high = brain_extent_mm(real)
    assert 110 < high - low < 170
    parameters: HeadParameters = replace(draw_parameters(1), skull_stripped=False)
    rendering = render(real, parameters, RenderGrid((80, 64), (2.8, 2.8), (-20.0, 0.0, 20.0), 4.0), stack)
    assert torch.isfinite(rendering.images).all()
    assert 0.3 < float((rendering.labels > 0).float().mean()) < 0.9
    assert _mean(rendering, 0, 2, 41) > _mean(rendering, 0, 3, 42) > _mean(rendering, 0, 4, 43)
    assert anatomy_of(real) is anatomy_of(real)
