"""The self-check of given images, on a prior whose modalities are known functions of one hidden anatomy."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest
import torch
from any2all.diffusion.comparisons import KINDS, compare, comparisons, denoising_margin, score
from any2all.diffusion.prior import PriorCard
from any2all.diffusion.schedule import cosine_schedule
from any2all.diffusion.selfcheck import Finding, Report, SelfCheck, check_images, fit_self_check, slices_to_check
from any2all.errors import Cancelled
from any2all.stack import load_stack
from torch.nn.functional import avg_pool2d

NAMES = ("bright", "dark", "faint")
GAIN, OFFSET = torch.tensor([0.8, -0.8, 0.4]), torch.tensor([0.0, 0.9, 0.3])
SLICES, SIZE = 4, 32


def anatomy(seed: int) -> torch.Tensor:
    """Blobs (Z, H, W) in [0, 1], others in every slice and head."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, SIZE),) * 2, indexing="ij")
    centres = 1.4 * torch.rand(SLICES, 12, 2, 1, 1, generator=generator) - 0.7
    blobs = ((y - centres[:, :, 0]) ** 2 + (x - centres[:, :, 1]) ** 2 < 0.03).float()
    return (0.3 + blobs.sum(dim=1) / 3).clamp(0, 1)


def head(seed: int) -> torch.Tensor:
    """A complete stack (Z, 3, H, W) in the prior's range; each rendering has its own gains and noise."""
    generator = torch.Generator().manual_seed(1000 + seed)
    gain = GAIN * (1 + 0.1 * torch.randn(3, generator=generator))
    u = gain[:, None, None] * anatomy(seed)[:, None] + OFFSET[:, None, None]
    u = u + (0.02 + 0.02 * torch.rand((), generator=generator)) * torch.randn(u.shape, generator=generator)
    return 2 * u.clamp(0, 1) - 1


class LinkedPrior:
    """x0_hat by the mean of what the clean channels say of the anatomy, somewhat blurred as a network's would be."""

    def __init__(self, selfcheck: SelfCheck | None = None) -> None:
        self.channels, self.device, self.schedule = 3, torch.device("cpu"), cosine_schedule()
        self.stack, self.card = SimpleNamespace(names=NAMES), SimpleNamespace(selfcheck=selfcheck)
        self.calls = 0

    def x0_hat(self, x: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        known = (levels < 1000).float()[..., None, None]
        x = x / self.schedule.abar[levels].sqrt().float()[..., None, None]
        says = ((x + 1) / 2 - OFFSET[:, None, None]) / GAIN[:, None, None]
        found = (known * says).sum(dim=1, keepdim=True) / known.sum(dim=1, keepdim=True)
        found = avg_pool2d(found, 3, stride=1, padding=1, count_include_pad=False)
        return 2 * (GAIN[:, None, None] * found.clamp(0, 1) + OFFSET[:, None, None]) - 1


@pytest.fixture(scope="module")
def fitted() -> LinkedPrior:
    return LinkedPrior(fit_self_check(LinkedPrior(), [head(seed) for seed in range(60)]))


def fired(prior: LinkedPrior, images: torch.Tensor, given: tuple[int, ...] = (0, 1, 2)) -> set[str]:
    return {f.modality for f in check_images(prior, images, given) if f.fired}


@pytest.mark.parametrize("given", [(0,), (1,), (0, 1), (0, 2), (0, 1, 2)])
def test_proper_heads_pass(fitted, given):
    alarms = [seed for seed in range(100, 120) if fired(fitted, head(seed), given)]
    assert len(alarms) <= 2


def changed(images: torch.Tensor, channel: int, image: torch.Tensor) -> torch.Tensor:
    images = images.clone()
    images[:, channel] = image
    return images


@pytest.mark.parametrize("change", [
    lambda images: changed(images, 1, head(7)[:, 1]),
    lambda images: changed(images, 1, images[:, 1].flip(-2)),
    lambda images: changed(images, 1, images[[2, 3, 0, 1], 1]),
    lambda images: changed(images, 1, -images[:, 1]),
    lambda images: changed(images, 1, images[:, 0]),
    lambda images: changed(images, 1, images[:, 1].roll(5, -1)),
], ids=["other patient", "upside down", "shuffled slices", "inverted", "wrong modality", "shifted"])  # fmt: skip
@pytest.mark.parametrize("given", [(0, 1), (0, 1, 2)])
def test_bad_images_fire_and_are_named(fitted, change, given):
    for seed in range(100, 105):
        assert "dark" in fired(fitted, change(head(seed)), given)


def test_a_wrong_modality_alone_does_not_fit_its_way_there_and_back(fitted):
    """``faint`` never reaches the values of ``dark``, so its anatomy would have to leave its range."""
    found = check_images(fitted, changed(head(100), 2, head(100)[:, 1]), (2,))
    assert found[0].companions == () and found[0].fired


def test_channels_that_are_not_given_are_not_read(fitted):
    images = head(100)
    images[:, 2] = float("nan")
    assert fired(fitted, images, (0, 1)) == fired(fitted, head(100), (0, 1))


def test_comparisons_are_what_their_equations_say():
    generator = torch.Generator().manual_seed(0)
    image = 0.2 * torch.randn(2, 24, 24, generator=generator)
    none = image[:, :0].reshape(2, 0, 24, 24)
    weaker = compare(0.5 * image + 0.2, image, none, none)
    assert weaker["structure"] == pytest.approx(1, abs=1e-5) and weaker["contrast"] == pytest.approx(1, abs=1e-5)
    assert weaker["error"] == pytest.approx(float((0.2 - 0.5 * image).square().mean()), rel=1e-4)
    inverted = compare(-image, image, none, none)
    assert inverted["structure"] == pytest.approx(-1, abs=1e-5) and inverted["contrast"] == pytest.approx(-1, abs=1e-5)
    shaded = compare(image + torch.linspace(-0.3, 0.3, 24), image, none, none)
    assert shaded["structure"] > 0.98 > 0.9 > shaded["contrast"]
    rivals = torch.stack([-image, image], dim=1)
    assert compare(image, image, none, none)["identity"] == pytest.approx(1)
    assert compare(-image, image, none, rivals)["identity"] == pytest.approx(-2, abs=1e-5)
    assert score("structure", 0.2, expected=0.8) == pytest.approx(0.75)
    assert score("error", 0.2, expected=0.1) == pytest.approx(math.log(2))


def test_the_denoising_margin_is_the_best_rivals_error_over_ones_own():
    image = torch.full((1, 8, 8), -1.0)
    image[:, 2:6] = 0.3
    shifts = torch.tensor([0.2, 0.1, 0.4])
    denoised = image[:, None] + shifts[:, None, None] * (image[:, None] > 0)
    for m, rival in ((0, 0.1), (1, 0.2), (2, 0.1)):
        expected = 2 * math.log(rival / float(shifts[m]))
        assert denoising_margin(denoised, image, m) == pytest.approx(expected, abs=1e-4)
    air = torch.full((1, 8, 8), -1.0)
    assert denoising_margin(denoised, air, 0) == 1.0


def test_an_image_alone_is_denoised_as_every_modality():
    """`faint` begins at u = 0.3, so what is darker cannot be denoised as `faint`."""
    images = head(100)
    assert comparisons(LinkedPrior(), images, {2: {()}})["denoising", 2, ()] > -0.1
    darker = changed(images, 2, 0.3 * images[:, 2] - 0.7)
    values = comparisons(LinkedPrior(), darker, {2: {(), (0,)}})
    assert values["denoising", 2, ()] < -0.5
    assert values["denoising", 2, (0,)] == 1.0  # beside companions, eq. 4 asks instead


def test_air_is_not_compared_and_companions_say_where_head_is():
    image = torch.full((1, 16, 16), -1.0)
    image[:, 4:12, 4:12] = 0.5
    other = image + 0.2 * (image > 0)
    companion = torch.full((1, 1, 16, 16), -1.0)
    assert compare(other, image, companion, companion[:, :0])["error"] == pytest.approx(0.04, rel=1e-4)
    companion[:] = 0.0
    assert compare(other, image, companion, companion[:, :0])["error"] == pytest.approx(0.04 / 4, rel=1e-4)


def test_a_real_stack_is_no_alarm_only_because_it_is_real():
    heads, strange = [head(seed) for seed in range(6)], 0.5 * head(50) - 0.5
    assert fired(LinkedPrior(fit_self_check(LinkedPrior(), heads)), strange, (0, 1))
    prior = LinkedPrior(fit_self_check(LinkedPrior(), heads, [(strange, (0, 1))]))
    worst = max(f.score / f.limit for f in check_images(prior, strange, (0, 1)))
    assert worst == pytest.approx(1 / 1.25, rel=1e-6)
    assert fired(prior, changed(strange, 1, strange[:, 1].flip(-2)), (0, 1))


def test_expected_values_stand_for_every_set_and_survive_the_card(fitted):
    check = fitted.card.selfcheck
    assert set(check.expected) == set(KINDS) == set(check.limits)
    assert set(check.expected["error"]) == {"", *NAMES, "bright+dark", "bright+faint", "dark+faint"}
    assert all(limit > 0 for table in check.limits.values() for row in table.values() for limit in row)
    settings = dict(
        version="1", noise_levels="per_modality", prediction="v", network={}, matrix=(16, 16),
        spacing_mm=(3.0, 3.0, 5.0), stack=load_stack(),
    )  # fmt: skip
    document = json.loads(json.dumps(PriorCard(**settings, selfcheck=check).to_json()))
    read = PriorCard.from_json(document).selfcheck
    for companions, value in (((), 0.01), (("bright",), 0.5), (("bright", "faint"), 0.3)):
        before, after = (c.finding("error", "dark", companions, value) for c in (check, read))
        assert after.score == pytest.approx(before.score, rel=1e-2)
        assert after.limit == pytest.approx(before.limit, rel=1e-3)
    del document["selfcheck"]
    assert PriorCard.from_json(document).selfcheck is None


def test_a_card_of_before_the_fifth_comparison_still_judges(fitted):
    check = fitted.card.selfcheck
    tables = ({k: v for k, v in t.items() if k != "denoising"} for t in (check.expected, check.limits))
    old = SelfCheck(*tables)
    assert "dark" in fired(LinkedPrior(old), changed(head(100), 1, head(7)[:, 1]), (0, 1))


def test_slices_lie_in_the_brain_where_every_image_shows_head():
    u = torch.zeros(60, 2, 8, 8)
    u[5:55, 0], u[20:, 1] = 0.5, 0.5
    chosen = slices_to_check(u, slice_mm=3.0)
    assert len(chosen) == 8 and chosen == sorted(chosen)
    assert chosen[0] == 20 and 54 - chosen[-1] == 7  # 21 mm below the top
    assert slices_to_check(u[:, :1], slice_mm=30.0) == [51, 52, 53]
    assert slices_to_check(torch.zeros(4, 1, 8, 8), slice_mm=3.0) == []
    u[20:, 1] = 0
    assert slices_to_check(u, slice_mm=3.0) == []


def test_it_can_be_cancelled_between_batches():
    prior = LinkedPrior()
    with pytest.raises(Cancelled):
        comparisons(prior, head(0), {0: {(1,)}}, batch_size=2, cancelled=lambda: prior.calls == 1)
    assert prior.calls == 1


def test_the_warning_names_modality_companions_and_numbers(fitted):
    report = Report(tuple(check_images(fitted, changed(head(100), 1, head(7)[:, 1]), (0, 1))), SLICES)
    sentence = next(w for w in report.warnings if w.startswith("dark: does not look like what the prior knows as dark"))
    assert "together with bright (self-check: " in sentence and "trust no output" in sentence
    entry = report.to_json()["modalities"]["dark"]
    assert entry["fired"] is True and entry["score"] > entry["limit"] and entry["companions"] == ["bright"]


@pytest.mark.parametrize("kind, score, limit, words", [
    ("structure", 0.9, 0.5, "10 % of the expected structure, limit 50 %"),
    ("contrast", 1.2, 0.3, "-20 % of the expected contrast, limit 70 %"),
    ("error", math.log(3.4), math.log(2), "3.4 times the expected error, limit 2.0"),
    ("denoising", math.log(1.5), math.log(1.1),
     "denoised as dark with 1.50 times the error of another modality, limit 1.10"),
    ("identity", 0.3, 0.05, "looks more like another modality by 0.30 in correlation, limit 0.05"),
])  # fmt: skip
def test_the_warning_says_its_numbers_in_words(kind, score, limit, words):
    sentence = Finding("dark", kind, (), score, limit).sentence()
    assert sentence.startswith(f"dark: does not look like what the prior knows as dark (self-check: {words}): wrong")
