"""The three stages train from one config; each resumes exactly and uses what the stage before has written."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from any2all.cdm.card import STAGES, load_card
from any2all.cdm.predictor import load_cdm
from any2all.cdm.stages import StageTraining, file_before
from any2all.cdm.train import main, stage_workflow
from any2all.errors import Any2allError
from monai.engines.utils import IterationEvents
from small_cdm import MATRIX, NETWORKS, RUN, SPACING_MM, STACK, volume

ITERATIONS = 6


def run(stage: str, folder: Path, cohort: Path, losses: list[float], stop_at: int | None = None, **more: Any) -> None:
    """One stage of ``ITERATIONS`` iterations; SIGTERM in the middle of one, where asked."""
    torch.manual_seed(0)
    settings = {**RUN, "datalist_file": str(cohort), "total_iterations": ITERATIONS, "epoch_length": 4, **more}
    workflow = stage_workflow(stage, folder, settings)
    workflow.trainer.add_event_handler(
        IterationEvents.LOSS_COMPLETED, lambda engine: losses.append(float(engine.state.output["loss"]))
    )
    workflow.trainer.add_event_handler(
        IterationEvents.MODEL_COMPLETED,
        lambda _: os.kill(os.getpid(), signal.SIGTERM) if len(losses) == stop_at else None,
    )
    workflow.run()
    workflow.finalize()


@pytest.fixture(scope="module")
def trained(small_cohort, tmp_path_factory) -> tuple[Path, dict[str, list[float]]]:
    """A folder of three finished stages, and the losses of each."""
    folder, losses = tmp_path_factory.mktemp("cdm"), {}
    for stage in STAGES:
        run(stage, folder, small_cohort, losses.setdefault(stage, []))
    return folder, losses


@pytest.mark.parametrize("stage", STAGES)
def test_a_stopped_stage_goes_on_exactly(stage, trained, small_cohort, tmp_path):
    folder, losses = trained
    before = str(file_before(folder / stage / "cdm.pt", stage)) if stage != "mrm" else None
    parts: list[float] = []
    with pytest.raises(SystemExit) as left:
        run(stage, tmp_path, small_cohort, parts, stop_at=3, previous_file=before)
    assert left.value.code == 130 and len(parts) == 3
    torch.rand(3)  # whatever random numbers the process has used meanwhile
    run(stage, tmp_path, small_cohort, parts, previous_file=before)
    assert parts == losses[stage] and len(parts) == ITERATIONS
    ends = [torch.load(root / stage / "cdm.pt", weights_only=True) for root in (folder, tmp_path)]
    assert set(ends[0]) == set(ends[1]) and all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_the_last_file_is_the_whole_of_cdm(trained):
    folder, _ = trained
    cdm = load_cdm(folder / "cunet" / "cdm.pt", autocast=False)
    card = cdm.card
    assert card.stack == STACK and card.matrix == MATRIX and card.networks == NETWORKS
    assert [card.training[stage]["iterations"] for stage in STAGES] == [ITERATIONS] * 3
    assert "L_MRM" in card.training["mrm"]["held_out"] and len(card.training["cunet"]["held_out"]) == 16
    assert len(card.training["file_sha256"]) == 8  # p1 has six images, p2 two
    assert cdm.predict(volume(1), [0]).isfinite().all()
    first = torch.load(folder / "mrm" / "cdm.pt", weights_only=True)
    last = torch.load(folder / "cunet" / "cdm.pt", weights_only=True)
    assert all(torch.equal(last[name], value) for name, value in first.items())


def test_a_stage_needs_the_one_before(trained, tmp_path):
    folder, _ = trained

    def start(stage: str, previous: Path | None, matrix: tuple[int, int] = MATRIX) -> None:
        batches: dict[str, dict[str, Any]] = {name: {} for name in STAGES}
        StageTraining(stage, STACK, matrix, SPACING_MM, NETWORKS, batches, previous)

    with pytest.raises(Any2allError, match="unknown stage.*mrm, mdn, cunet"):
        start("unet", None)
    with pytest.raises(Any2allError, match="not found"):
        start("mdn", tmp_path / "cdm.pt")
    with pytest.raises(Any2allError, match="stage mdn"):
        start("cunet", folder / "mrm" / "cdm.pt")
    with pytest.raises(Any2allError, match="another stack or grid"):
        start("mdn", folder / "mrm" / "cdm.pt", (40, 24))


def test_one_command_trains_all_three(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("any2all.cdm.train.run_stage", lambda *arguments: asked.append(arguments))
    main(["--minutes", "60", "--output_dir", str(tmp_path), "--set", '{"workers": 0}'])
    assert [stage for stage, _, _ in asked] == list(STAGES)
    assert sum(settings["minutes"] for _, _, settings in asked) == pytest.approx(60)
    assert all(folder == tmp_path and settings["workers"] == 0 for _, folder, settings in asked)
    main(["--stage", "mdn", "--minutes", "5"])
    assert asked[-1][0] == "mdn" and asked[-1][2] == {"minutes": 5.0}


def test_the_card_of_an_unfinished_first_stage_says_so(trained, small_cohort, tmp_path):
    with pytest.raises(SystemExit):
        run("mrm", tmp_path, small_cohort, [], stop_at=5)
    assert load_card(tmp_path / "mrm" / "cdm.pt").standardisation is None
    with pytest.raises(Any2allError, match="train the stage mrm to its end"):
        StageTraining("mdn", STACK, MATRIX, SPACING_MM, NETWORKS, {"mdn": {}}, tmp_path / "mrm" / "cdm.pt")


def test_a_stage_does_not_go_on_where_the_one_before_has_changed(small_cohort, tmp_path, capsys):
    """MDN has no time left, and its file would join an MDN of the old y_0 to the MRM of another."""
    for stage in ("mrm", "mdn", "mdn"):  # the third finds everything as it was
        run(stage, tmp_path, small_cohort, [])
    before = (tmp_path / "mdn" / "cdm.pt").read_bytes()
    run("mrm", tmp_path, small_cohort, [], total_iterations=ITERATIONS + 2)
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        run("mdn", tmp_path, small_cohort, [])
    words = capsys.readouterr().err.splitlines()[-1]
    assert left.value.code == 2 and words.startswith("error: previous_file: the stage before was trained on since")
    assert (tmp_path / "mdn" / "cdm.pt").read_bytes() == before
    run("mdn", tmp_path, small_cohort, losses := [], resume=False)
    assert len(losses) == ITERATIONS


def changed(part: str, **settings: Any) -> dict[str, dict[str, Any]]:
    return {**NETWORKS, part: {**NETWORKS[part], **settings}}


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"stage": "mdm"}, "error: stage: unknown stage; got 'mdm'; allowed: mrm, mdn, cunet"),
        ({"standardisation_slices": 0}, "error: standardisation_slices: this number cannot be used"),
        ({"batches": {"mrm": {"ratio": 0.5}}}, "error: batches.mrm: unknown key; got ['ratio']; allowed: mask_ratio"),
        ({"batches": {"mrm": {"mask_ratio": 1.0}}}, "error: batches.mrm.mask_ratio: of 12 patches some have to be"),
        ({"batches": {"mrm": {"mask_ratio": 0.02}}}, "error: batches.mrm.mask_ratio: of 12 patches some have to be"),
        ({"batches": {"mdn": {"draws": 0}}}, "error: batches.mdn.draws: this number cannot be used; got 0"),
        ({"batches": {"mdn": {"empty": 2}}}, "error: batches.mdn.empty: this is no share; got 2; allowed: 0 to 1"),
        ({"batches": {"cunet": {"steps": 1001}}}, "error: batches.cunet.steps: this number cannot be used; got 1001"),
        ({"batches": {"cunet": {"encoded": 0.6}}}, "error: batches.cunet: more than all rows; got (0.6, 0.425)"),
        ({"networks": changed("mrm", width=25)}, "error: networks.mrm: the network cannot be built"),
        ({"networks": changed("mrm", patches=8)}, "error: networks.mrm: the network cannot be built"),
        # of later stages
        ({"networks": changed("mdn", embedding=15)}, "error: networks.mdn: the network cannot be built: an embedding"),
        (
            {"networks": changed("cunet", blocks=[1, 1])},
            "error: networks.cunet: the network cannot be built: 2 numbers",
        ),
        ({"networks": changed("cunet", widths=[8, 16, 12])}, "error: networks.cunet: the network cannot be built: num"),
    ],
)
def test_settings_that_would_train_on_nothing_or_fail_late_are_refused(settings, words, small_cohort, tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        run(**{"stage": "mrm", "folder": tmp_path, "cohort": small_cohort, "losses": [], **settings})
    assert left.value.code == 2 and capsys.readouterr().err.splitlines()[-1].startswith(words)
    assert not list(tmp_path.rglob("cdm.pt"))
