"""Field strength, protocols, atrophy, tumours and bleeds: each changes what it should, and that alone."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from any2all.phantom import RenderGrid, draw_parameters, render
from any2all.phantom.contrast import mr_contrast
from any2all.phantom.field_strength import times_at_field
from any2all.phantom.parameters import Bleed, Lesions, Tumour, at_field, draw_ordinary
from any2all.phantom.tissues import HEAD_TISSUES, INDEX, MASS_TISSUES

MR = ("T1", "T2", "T2FLAIR", "T2star")


@pytest.fixture(scope="module")
def drawn() -> list:
    return [draw_parameters(seed) for seed in range(400)]


@pytest.fixture
def quiet(plain):
    """A common protocol at 3 T, without noise: what differs between two renderings is what was changed."""
    ordinary = draw_ordinary(3)
    return replace(ordinary, pose=plain.pose, lesions=plain.lesions, skull_stripped=False)


def _change(head, grid, stack, before, after) -> dict[str, torch.Tensor]:
    change = render(head, after, grid, stack).images - render(head, before, grid, stack).images
    return {name: change[:, m] for m, name in enumerate(stack.names)}


def test_what_a_seed_drew_before_stays(drawn) -> None:
    """Frozen values of seed 114, of which the demonstration study is made."""
    ordinary = draw_ordinary(114)
    assert not ordinary.amyloid_positive and ordinary.pose.rotation_deg[0] == pytest.approx(5.973486931570096)
    assert ordinary.sequences["T2FLAIR"]["ti"] == pytest.approx(2598.8764126313677)
    assert ordinary.susceptibility == pytest.approx((1.554339809006086, 3.551182342888988))
    assert ordinary.pet_regional == pytest.approx(0.11913064127959908)
    for seed in (0, 7, 114):
        before, now = draw_ordinary(seed), drawn[seed]
        varied = {"sequences", "texture", "mr_noise", "atrophy_mm", "lesions", "field_tesla", "tissue_values"}
        for field in {f.name for f in fields(now)} - varied - {"susceptibility"}:
            assert getattr(before, field) == getattr(now, field), field
        assert replace(now.lesions, tumour=None, bleeds=()) == before.lesions


def test_each_variation_is_as_frequent_as_it_says(drawn) -> None:
    shares = {
        "low field": np.mean([p.field_tesla == 1.5 for p in drawn]),
        "atrophy": np.mean([max(p.atrophy_mm) > 0 for p in drawn]),
        "tumour": np.mean([p.lesions.tumour is not None for p in drawn]),
        "bleeds": np.mean([len(p.lesions.bleeds) > 0 for p in drawn]),
    }
    expected = {"low field": 0.3, "atrophy": 0.35, "tumour": 0.06, "bleeds": 0.2}
    for name, share in shares.items():
        assert abs(share - expected[name]) < 4 * (expected[name] / 400) ** 0.5 + 0.01, name
    noise = np.array([list(p.mr_noise.values()) for p in drawn])
    assert 0.004 <= noise.min() < 0.005 and 0.045 < noise.max() <= 0.05
    assert {len(p.lesions.bleeds) for p in drawn} == set(range(7))
    assert all(0 < p.atrophy_mm[0] <= 2.5 or p.atrophy_mm == (0.0, 0.0) for p in drawn)


def test_amyloid_status_is_independent_of_every_variation(drawn) -> None:
    status = np.array([p.amyloid_positive for p in drawn], dtype=float)
    visible = (
        lambda p: p.field_tesla,
        lambda p: p.atrophy_mm[0],
        lambda p: p.atrophy_mm[1],
        lambda p: len(p.lesions.bleeds),
        lambda p: p.lesions.tumour is not None,
        lambda p: p.texture,
        lambda p: p.mr_noise["T1"],
    )
    for value in visible:
        assert abs(np.corrcoef(status, [value(p) for p in drawn])[0, 1]) < 0.15


def test_parameters_survive_json(drawn) -> None:
    full = next(p for p in drawn if p.lesions.tumour)
    full = replace(full, lesions=replace(full.lesions, bleeds=(Bleed("microbleed", 1.0, 50.0, 4.0),)))
    record = json.loads(json.dumps(full.record()))
    assert Tumour(**record["lesions"]["tumour"]) == full.lesions.tumour
    assert Bleed(**record["lesions"]["bleeds"][0]) == full.lesions.bleeds[0]
    assert record["field_tesla"] == full.field_tesla and tuple(record["atrophy_mm"]) == full.atrophy_mm


def test_times_at_one_and_a_half_tesla_are_near_the_measured_ones() -> None:
    """White matter at 1.5 T: T1 near 650 (600-700), T2* near 66 ms (Peters et al. 2007); fluid and fat hardly move."""
    t1, t2, t2star = times_at_field("white_matter", 850, 75, 48, 1.5)
    assert 600 < t1 < 700 and 75 < t2 < 85 and 58 < t2star < 70
    assert times_at_field("ventricle", 4300, 1600, 500, 1.5)[:2] == (4300, 1600)
    assert 310 < times_at_field("fat", 375, 125, 32, 1.5)[0] < 375
    for tissue in (*HEAD_TISSUES, *MASS_TISSUES):
        same = times_at_field(tissue.name, tissue.t1, tissue.t2, tissue.t2star, 3.0)
        assert same == pytest.approx((tissue.t1, tissue.t2, tissue.t2star))


def test_grey_and_white_keep_their_order_in_every_protocol_and_field(drawn) -> None:
    """In all heads, but for FLAIR: drawn tissue values bring grey and white together there in one head of thirty."""
    drawn = drawn[:150]
    white, grey, fluid = (INDEX[n] for n in ("white_matter", "cortex", "ventricle"))
    levels = {name: torch.stack([mr_contrast(p, name).level for p in drawn]) for name in MR}
    ordered = {
        "T1": (levels["T1"][:, white] > levels["T1"][:, grey]) & (levels["T1"][:, grey] > levels["T1"][:, fluid]),
        "T2": (levels["T2"][:, fluid] > levels["T2"][:, grey]) & (levels["T2"][:, grey] > levels["T2"][:, white]),
        "T2FLAIR": (levels["T2FLAIR"][:, grey] > levels["T2FLAIR"][:, white])
        & (levels["T2FLAIR"][:, white] > 2 * levels["T2FLAIR"][:, fluid]),
        "T2star": levels["T2star"][:, grey] > levels["T2star"][:, white],
    }
    for name, holds in ordered.items():
        assert float(holds.float().mean()) >= (0.94 if name == "T2FLAIR" else 1.0), name


def test_a_weaker_field_changes_mr_alone(head, grid, stack, quiet) -> None:
    change = _change(head, grid, stack, quiet, at_field(quiet, 1.5))
    assert not bool(change["CT"].any()) and not bool(change["PET"].any())
    assert all(bool(change[name].any()) for name in MR)
    low = at_field(quiet, 1.5)
    assert low.susceptibility[0] == quiet.susceptibility[0] / 2 and low.field_tesla == 1.5


def test_atrophy_makes_fluid_of_what_lies_beside_it(head, grid, stack, quiet) -> None:
    whole = render(head, quiet, grid, stack)
    gone = render(head, replace(quiet, atrophy_mm=(2.5, 1.2)), grid, stack)
    ventricle, csf = ([int(torch.isin(r.labels, codes).sum()) for r in (whole, gone)] for codes in _fluids())
    assert ventricle[1] > 1.1 * ventricle[0] and csf[1] > 1.05 * csf[0]
    changed = whole.labels != gone.labels
    assert bool(torch.isin(gone.labels[changed], torch.cat(_fluids())).all())
    for left, right in ((2, 41), (3, 42)):
        assert not bool((changed & (whole.labels == left) & (gone.labels == 43)).any())
        assert not bool((changed & (whole.labels == right) & (gone.labels == 4)).any())
    widened = changed & torch.isin(gone.labels, _fluids()[0])
    change = {name: (gone.images - whole.images)[:, m][widened].mean() for m, name in enumerate(stack.names)}
    assert change["T1"] < 0 < change["T2"] and change["T2FLAIR"] < 0 and change["CT"] < 0 and change["PET"] < 0


def _fluids() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([4, 43], dtype=torch.int16), torch.tensor([24], dtype=torch.int16)


def test_atrophy_leaves_the_middle_of_tissue_alone(head, grid, stack, quiet) -> None:
    change = _change(head, grid, stack, quiet, replace(quiet, atrophy_mm=(1.0, 0.6)))
    untouched = (change["CT"].abs() < 0.01).float().mean()
    assert float(untouched) > 0.7, "atrophy reaches far from any fluid"


@pytest.mark.parametrize("form", [(0.0, 0.0), (0.7, 0.0), (0.0, 0.4)], ids=["solid", "necrotic", "heterogeneous"])
def test_a_tumour_is_bright_in_t2_and_dark_in_t1_and_its_oedema_spares_cortex(form, head, stack, quiet) -> None:
    grid = RenderGrid((76, 64), (3.0, 3.0), tuple(np.arange(-66.0, 67.0, 12.0)), 3.0)
    tumour = Tumour(18.0, *form, oedema_mm=18.0)
    change = _change(head, grid, stack, quiet, replace(quiet, lesions=replace(quiet.lesions, tumour=tumour)))
    mass = change["T2"] > 0.3 * change["T2"].max()
    assert int(mass.sum()) > 20
    assert float(change["T1"][mass].mean()) < 0 < float(change["T2FLAIR"][mass].mean())
    assert float(change["CT"][mass].mean()) < (0 if any(form) else 4)
    assert float(change["PET"][mass].abs().mean()) < 0.8
    labels = render(head, quiet, grid, stack).labels
    flair = change["T2FLAIR"].abs()
    assert float(flair[labels == 507].max()) < 1e-3 * float(flair.max())


def test_a_bleed_shows_in_ct_and_t2star_and_leaves_t1_and_pet(head, stack, quiet) -> None:
    grid = RenderGrid((76, 64), (3.0, 3.0), tuple(np.arange(-66.0, 67.0, 6.0)), 6.0)
    bleeds = (Bleed("haemorrhage", 8.0, 70.0, 4.0),)
    change = _change(head, grid, stack, quiet, replace(quiet, lesions=replace(quiet.lesions, bleeds=bleeds)))
    assert not bool(change["T1"].any()) and not bool(change["PET"].any())
    in_ct, dark = change["CT"] > 10, change["T2star"] < 0.3 * change["T2star"].min()
    assert int(in_ct.sum()) > 5 and int(dark.sum()) > 1.3 * int(in_ct.sum()), "T2star does not bloom"
    assert bool(dark[in_ct].float().mean() > 0.9)
    assert float(change["T2"][in_ct].mean()) < 0 and float(change["T2FLAIR"][in_ct].mean()) < 0


def test_a_microbleed_is_seen_by_t2star_and_hardly_by_ct(head, stack, quiet) -> None:
    grid = RenderGrid((76, 64), (3.0, 3.0), tuple(np.arange(-66.0, 67.0, 6.0)), 6.0)
    bleeds = (Bleed("microbleed", 1.0, 55.0, 5.0),) * 3
    change = _change(head, grid, stack, quiet, replace(quiet, lesions=replace(quiet.lesions, bleeds=bleeds)))
    white = float(mr_contrast(quiet, "T2star").level[INDEX["white_matter"]])
    assert float(change["T2star"].min()) < -0.08 * white
    assert float(change["CT"].abs().max()) < 5 and not bool(change["T2"].any())


def test_blooming_is_weaker_at_one_and_a_half_tesla(head, stack, quiet) -> None:
    grid = RenderGrid((76, 64), (3.0, 3.0), tuple(np.arange(-66.0, 67.0, 6.0)), 6.0)
    found = Lesions(0, None, 1.0, 0.0, 0.0, (), bleeds=(Bleed("calcification", 5.0, 300.0, 3.0),))
    lost = []
    for tesla in (3.0, 1.5):
        before = at_field(quiet, tesla)
        change = _change(head, grid, stack, before, replace(before, lesions=found))["T2star"]
        lost.append(float(change.sum()) / float(mr_contrast(before, "T2star").level[INDEX["white_matter"]]))
    assert lost[0] < 1.2 * lost[1] < 0


def test_variations_repeat(head, grid, stack, quiet) -> None:
    lesions = replace(
        quiet.lesions, tumour=Tumour(12.0, 0.5, 0.0, 10.0), bleeds=(Bleed("haemorrhage", 5.0, 60.0, 3.0),)
    )
    full = at_field(replace(quiet, lesions=lesions, atrophy_mm=(1.5, 0.8)), 1.5)
    assert torch.equal(render(head, full, grid, stack).images, render(head, full, grid, stack).images)
