"""Tasks, methods, records, verdicts and the report, on a tiny prior that knows nothing."""

import csv
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import any2all
import numpy as np
import pytest
import torch
from any2all.diffusion.prior import save_prior
from any2all.errors import Any2allError
from any2all.evaluation import deepinv_import
from any2all.evaluation.evaluate import Evaluation
from any2all.evaluation.predictions import Prediction, PredictionFolder
from any2all.evaluation.ranks import Ranks
from any2all.evaluation.records import Record
from any2all.evaluation.report import notes, publish
from any2all.evaluation.tasks import Method, Task, changed, chosen
from any2all.evaluation.tune import variations
from small_cdm import saved_cdm
from small_evaluation import SIMULATION, STACK, evaluation, truth

CONFIG = Path(any2all.__file__).parents[1] / "configs" / "evaluate.json"


def record(estimates, true, method="m"):
    found = Prediction("cases", "task", method, tuple(range(len(true))), 5, 0.1, {"CT": estimates.numpy()}, "mark")
    return Record.of(found, "CT", true.numpy(), ["a"] * len(true), measured=False)


def test_scores_of_one_sample_and_of_the_mean_of_several():
    """Samples that scatter about the truth by 0.05: the mean of 16 gains 12 dB and errs 4 times less than they vary."""
    true = torch.full((2, 64, 64), 0.5)
    samples = true + 0.05 * torch.randn(16, 2, 64, 64, generator=torch.Generator().manual_seed(0))
    scored = record(samples, true)
    assert scored.psnr == pytest.approx(-20 * math.log10(0.05), abs=0.1)
    assert scored.psnr_mean - scored.psnr == pytest.approx(10 * math.log10(16), abs=0.2)
    assert scored.spread_ratio == pytest.approx(4.0, rel=0.05)
    assert record(samples[:1], true).spread_ratio is None


def test_exact_posterior_samples_have_the_spread_that_the_table_names():
    """Truth and 4 samples are draws of one distribution: std over error of the mean is sqrt(4 / 5) = 0.89."""
    draws = 0.5 + 0.05 * torch.randn(5, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    assert record(draws[1:], draws[0]).spread_ratio == pytest.approx(math.sqrt(0.8), rel=0.03)


def test_a_record_on_some_of_its_slices():
    true = torch.zeros(3, 16, 16)
    estimates = true + torch.tensor([0.1, 0.2, 0.3])[:, None, None]
    part = record(estimates[None], true).on([1])
    assert part.psnr == pytest.approx(-20 * math.log10(0.2)) and part.slices == [1]
    assert part.on([0, 1]) is None


def test_every_entry_of_the_config_is_valid_and_methods_meet_the_tasks_that_suit_them(tiny_prior):
    config = json.loads(CONFIG.read_text())
    tasks = [Task.from_dict(entry, STACK) for entry in config["task_list"]]
    methods = [Method.from_dict(entry) for entry in config["method_list"]]
    for method in methods:
        assert set(method.tasks or ()) <= {task.name for task in tasks}
    whole = Evaluation(tiny_prior, [truth()], tasks, methods, training=lambda: truth().slices)
    plan = {(trial.task.name, trial.method.name) for trial in whole.plan()}
    assert ("T1", "mcs-1") in plan and ("R4", "mcs-1") not in plan
    assert ("R4", "SENSE") in plan and ("T1", "SENSE") not in plan and ("R4-of-three", "SENSE") not in plan
    assert ("T1", "matched_copy") in plan and ("R4", "matched_copy") not in plan
    assert {task for task, method in plan if method == "mps-1000"} == {task.name for task in tasks}
    assert not any(method.endswith("-shared") or method == "regression" for _, method in plan)
    assert "regression.pt is not beside the evaluated prior" in whole.left_out["regression"]
    slow = next(method for method in methods if method.name == "mps-1000")
    assert slow.chosen_slices(6) == [2, 3] and slow.chosen_slices(2) == [0, 1]


def test_cases_without_a_modality_are_not_asked_for_it(tiny_prior):
    real = replace(truth("real", ("a",)), present=("T1", "T2", "T2FLAIR"))
    tasks = [Task("T1", ("CT",), ("T1",), on=("real",)), Task("T1+T2", ("T2FLAIR",), ("T1", "T2"), on=("real",))]
    method = Method.from_dict({"name": "m", "sampler": "mcs", "steps": 1, "on": ["real"]})
    plan = Evaluation(tiny_prior, [real], tasks, [method]).plan()
    assert [trial.task.name for trial in plan] == ["T1+T2"]


@pytest.mark.parametrize("entry, key", [
    ({"name": "a", "sampler": "dps"}, "method_list.sampler"),
    ({"name": "a", "peer": "gan"}, "method_list.peer"),
    ({"name": "a", "sampler": "mcs", "stesp": 5}, "method_list.a"),
    ({"name": "a", "sampler": "mcs", "peer": "cdm"}, "method_list.a"),
    ({"name": "a", "sampler": "mcs", "slices": 0}, "method_list.a.slices"),
    ({"name": "a", "sampler": "mcs", "samples": 0}, "method_list.a.samples"),
    ({"name": "a", "sampler": "mcs", "steps": 2.5}, "method_list.a.steps"),
    ({"name": "a", "sampler": "mcs", "on": ["rendred"]}, "method_list.a.on"),
    ({"name": "a", "sampler": "mcs", "tasks": "R4+T1"}, "method_list.a.tasks"),
    ({"name": "a", "sampler": "mcs", "applies": "image"}, "method_list.a.applies"),
])  # fmt: skip
def test_a_method_that_does_not_exist_is_refused(entry, key):
    with pytest.raises(Any2allError) as caught:
        Method.from_dict(entry)
    assert caught.value.key == key


@pytest.mark.parametrize("entry, key", [
    ({"targets": []}, "task_list.a.targets"),
    ({"targets": "CT", "given": ["T1"]}, "task_list.a.targets"),
    ({"targets": ["CT"], "given": ["CT"]}, "task_list.a.given"),
    ({"targets": ["CT"], "given": ["T1"], "on": ["real", "blocks"]}, "task_list.a.on"),
    ({"targets": ["T1"], "raw": ["T1"], "acceleration": 0}, "task_list.a.acceleration"),
])  # fmt: skip
def test_a_task_that_would_ask_for_nothing_is_refused(entry, key):
    with pytest.raises(Any2allError) as caught:
        Task.from_dict({"name": "a", **entry}, STACK)
    assert caught.value.key == key


def test_names_are_chosen_as_text_or_list_and_unknown_ones_refused():
    tasks = [Task("a", ("CT",)), Task("b", ("CT",))]
    assert chosen(tasks, None, "tasks") == tasks == chosen(tasks, "a, b", "tasks")
    assert chosen(tasks, ("b",), "tasks") == tasks[1:]
    with pytest.raises(Any2allError, match="allowed: a, b"):
        chosen(tasks, "c", "tasks")
    with pytest.raises(Any2allError, match="unknown modality"):
        Task.from_dict({"name": "x", "targets": ["MRA"]}, STACK)


METHODS = [
    {"name": "zero_filled", "peer": "zero_filled"},
    {"name": "SENSE", "peer": "SENSE"},
    {"name": "mcs-1", "sampler": "mcs", "steps": 1},
    {"name": "mcs-5", "sampler": "mcs", "steps": 5, "samples": 2, "consistency": "calibrated"},
    {"name": "mds", "sampler": "mds", "steps": 3, "slices": 2},
]


def test_a_report_is_measured_written_and_printed(tiny_prior, tmp_path, capsys):
    whole = evaluation(tiny_prior, tmp_path / "out", METHODS)
    records = whole.run()
    publish(whole, records)
    found = {(r.task, r.target, r.method): r for r in records}
    assert found["R4+T1", "T2FLAIR", "zero_filled"].psnr < found["R4+T1", "T2FLAIR", "SENSE"].psnr
    assert ("R4+T1", "T2FLAIR", "mcs-1") not in found and found["T1", "CT", "mcs-1"].passes == 1
    assert found["T1", "PET", "mcs-5"].samples == 2 and found["T1", "PET", "mds"].slices == [2, 3]
    text = (tmp_path / "out" / "report.md").read_text()
    assert text.strip() in capsys.readouterr().out
    for words in ("inverse crime", "no real CT or PET", "no mean training image", "slices 2, 3 only"):
        assert words in text
    rows = list(csv.DictReader((tmp_path / "out" / "numbers.csv").open()))
    assert len(rows) == len(records)
    for row in rows:
        same = found[row["task"], row["target"], row["method"]]
        assert float(row["psnr_db"]) == pytest.approx(same.psnr, abs=1e-3)


def test_fully_sampled_data_needs_no_prior(tiny_prior):
    """R = 1 with little noise: whatever the prior thinks, the k-space decides."""
    task = [Task("R1", ("T2FLAIR",), (), ("T2FLAIR",))]
    method = [{"name": "mcs", "sampler": "mcs", "steps": 5, "consistency": "calibrated"}]
    simulation = {"acceleration": 1, "noise_std": 0.002}
    records = evaluation(tiny_prior, None, method, task, simulation=simulation).run()
    assert {r.method: r.psnr for r in records}["mcs"] > 40


def test_what_was_predicted_is_not_predicted_again(tiny_prior, tmp_path, monkeypatch):
    first = evaluation(tiny_prior, tmp_path, METHODS).run()
    made = []
    original = PredictionFolder.add

    def counting(self, prediction):
        made.append((prediction.task, prediction.method))
        return original(self, prediction)

    monkeypatch.setattr(PredictionFolder, "add", counting)
    again = evaluation(tiny_prior, tmp_path, METHODS).run()
    assert made == []
    assert [r.psnr for r in again] == pytest.approx([r.psnr for r in first], abs=1e-2)  # 16-bit files
    evaluation(tiny_prior, tmp_path, [{**METHODS[3], "eta": 0.5}], seed=0).run()
    assert made == [("R4+T1", "mcs-5"), ("T1", "mcs-5")]
    evaluation(tiny_prior, tmp_path, METHODS[2:3], simulation={"acceleration": 2}).run()
    assert made[2:] == [("T1", "mcs-1")]


def test_a_task_may_be_measured_more_sparsely(tiny_prior, tmp_path):
    """R = 8 where the rest is R = 4: half the lines, a prediction of its own, and SENSE does worse on it."""
    entry = {"name": "sparse", "targets": ["T2FLAIR"], "raw": ["T2FLAIR"]}
    tasks = [Task.from_dict(entry, STACK), Task.from_dict({**entry, "name": "sparser", "acceleration": 8}, STACK)]
    whole = evaluation(tiny_prior, tmp_path, METHODS[1:2], tasks)
    lines = [t.acquire(truth(), STACK, SIMULATION)["T2FLAIR"].mask[0].sum() for t in tasks]
    assert lines == [8, 4]
    found = {r.task: r.psnr for r in whole.run()}
    assert found["sparser"] < found["sparse"] - 1
    four, eight = (whole.mark(trial) for trial in whole.plan())
    assert four != eight


def test_settings_are_laid_over_methods_by_name():
    entries = changed(METHODS, {"mcs-5": {"samples": 1, "tasks": ["T1"]}})
    assert entries[3] == {**METHODS[3], "samples": 1, "tasks": ["T1"]} and entries[:3] == METHODS[:3]
    with pytest.raises(Any2allError, match="method_changes"):
        changed(METHODS, {"gan": {"samples": 1}})
    with pytest.raises(Any2allError, match="method_changes.mds: these are no settings; got 3"):
        changed(METHODS, {"mds": 3})
    with pytest.raises(Any2allError, match="methods: two entries have this name; got 'mds'"):
        chosen([*METHODS, METHODS[-1]], None, "methods")
    assert chosen(METHODS, "mds", "methods") == METHODS[-1:]


def test_a_peer_is_a_method_like_any_other(tiny_prior, tmp_path):
    """deepinv's DiffPIR from the configuration: predicted, its settings in its mark; without deepinv left out aloud."""
    entry = {"name": "d", "peer": "deepinv_DiffPIR", "steps": 3, "slices": 1, "samples": 2}
    whole = evaluation(tiny_prior, tmp_path, [entry])
    if not deepinv_import.is_available():
        assert not whole.plan() and "any2all[peers]" in whole.left_out["d"]
        pytest.skip("deepinv cannot be imported: pip install 'any2all[peers]'")
    records = whole.run()
    assert {(r.task, r.target, r.passes, r.samples, len(r.slices)) for r in records} == {
        ("R4+T1", "T2FLAIR", 3, 2, 1), ("T1", "CT", 3, 2, 1), ("T1", "PET", 3, 2, 1)}  # fmt: skip
    marks = [e.mark(e.plan()[0]) for e in (whole, evaluation(tiny_prior, tmp_path, [{**entry, "lamda": 3.0}]))]
    assert marks[0] != marks[1]


def test_what_is_not_there_is_left_out_in_words(tiny_prior, tiny_model_file, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(deepinv_import.importlib.util, "find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "deepinv", raising=False)
    methods = [
        *METHODS[:1],
        {"name": "a", "sampler": "mds", "model": "shared.pt"},
        {"name": "b", "peer": "deepinv_DPS"},
        {"name": "c", "sampler": "mcs", "steps": 1, "centre": 0.5},  # the tiny prior has no mean network
        {"name": "d", "sampler": "mcs", "steps": 2, "centre": 0.5},  # and is centred on its own first passes
    ]
    whole = evaluation(tiny_prior, tmp_path, methods, models=tiny_model_file.parent)
    publish(whole, whole.run())
    assert {"a", "b", "c"} == set(whole.left_out)
    text = (tmp_path / "report.md").read_text()
    assert "Left out: a (" in text and "shared.pt is not beside" in text and "deepinv is not installed" in text
    beside = evaluation(tiny_prior, None, [{"name": "a", "sampler": "mds", "steps": 2, "model": "model.pt"}],
                        models=tiny_model_file.parent)  # fmt: skip
    assert not beside.left_out and len(beside.run()) == 3


def test_ranks_share_all_the_work_evenly():
    items = [90, 5, 40, 50, 5, 10]
    shares = [Ranks(rank, 2).share(items, lambda cost: cost) for rank in (0, 1)]
    assert sorted(shares[0] + shares[1]) == sorted(items) and [sum(share) for share in shares] == [100, 100]
    assert shares[0] == [item for item in items if item in shares[0]]  # in their order
    assert Ranks().share(items, lambda cost: cost) == items


def test_several_processes_need_a_folder(tiny_prior):
    with pytest.raises(Any2allError, match="output_dir"):
        evaluation(tiny_prior, None, METHODS, ranks=Ranks(0, 2))


def test_a_broken_prediction_is_refused_in_words(tiny_prior, tmp_path):
    evaluation(tiny_prior, tmp_path, METHODS[:1]).run()
    file = next((tmp_path / "predictions").glob("*.npz"))
    whole = file.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]
    for broken in (b"not an archive", b"", whole[:-9], flipped):  # the last three: a cut, as by a full disk, and a flip
        file.write_bytes(broken)
        with pytest.raises(Any2allError, match="earlier results"):
            evaluation(tiny_prior, tmp_path, METHODS[:1]).run()


def test_a_prediction_that_cannot_be_kept_leaves_nothing_and_says_why(tiny_prior, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(Any2allError, match="output_dir: results cannot be kept: No space left") as caught:
        evaluation(tiny_prior, tmp_path, METHODS[:1]).run()
    assert caught.value.code == "storage" and list((tmp_path / "predictions").iterdir()) == []


def test_the_mean_image_is_the_rival_of_synthetic_images(tiny_prior):
    slices = truth().slices
    mean = slices.mean(dim=0).numpy()
    methods = [{"name": "mean_image", "peer": "mean_image"}]
    records = evaluation(tiny_prior, None, methods, mean_image=mean).run()
    expected = -10 * np.log10(((mean - slices.numpy())[:, 4] ** 2).mean())
    assert {(r.target, r.method): r.psnr for r in records}["CT", "mean_image"] == pytest.approx(expected, abs=1e-2)


def test_settings_to_try_are_every_combination():
    tried = variations({"name": "m", "sampler": "mds"}, ["gamma=1,5", "eta_convention=dds,ddim"])
    assert [(m["gamma"], m["eta_convention"]) for m in tried] == [(1, "dds"), (1, "ddim"), (5, "dds"), (5, "ddim")]
    assert tried[3]["name"] == "gamma=5 eta_convention=ddim"
    with pytest.raises(Any2allError):
        variations({"name": "m"}, ["gamma"])


CDM_ROWS = [
    {"name": name, "peer": name, "samples": 2} for name in ("cdm", "cdm-unconditional", "cdm-null", "cdm-oracle")
]


def test_the_four_rows_of_cdm_are_tried_where_images_are_given(tiny_prior, tiny_cdm_file, tmp_path):
    """Each guidance predicts something else; samples only where something is drawn; the oracle is no rival."""
    found = evaluation(tiny_prior, tmp_path, CDM_ROWS, models=tiny_cdm_file.parent)
    assert {trial.task.name for trial in found.plan()} == {"T1"}
    drawn = {trial.method.name: found.predict(trial).images["CT"] for trial in found.plan()}
    assert {name: len(images) for name, images in drawn.items()} == {
        **{"cdm": 2, "cdm-unconditional": 2, "cdm-null": 1, "cdm-oracle": 1}
    }
    first = [images[0] for images in drawn.values()]
    assert all(np.abs(a - b).max() > 1e-4 for i, a in enumerate(first) for b in first[:i])
    assert found.mark(found.plan()[0]) != found.mark(found.plan()[2])
    alike = evaluation(tiny_prior, None, [{**CDM_ROWS[0], "rho": "prior"}], models=tiny_cdm_file.parent)
    assert len(alike.run()) == 2 and alike.mark(alike.plan()[0]) != found.mark(found.plan()[0])
    oracle, plain = found.methods[3], found.methods[0]
    assert oracle.sees_truth and not plain.sees_truth and plain.draws_samples and not oracle.draws_samples
    assert any("cdm-oracle looks at the truth" in note for note in notes(found))


def test_the_oracle_is_shown_the_slices_that_are_tried(tiny_prior, tiny_cdm_file, tmp_path):
    rows = [CDM_ROWS[3], {**CDM_ROWS[3], "name": "two", "slices": 2}]
    found = evaluation(tiny_prior, tmp_path, rows, models=tiny_cdm_file.parent)
    whole, two = (found.predict(trial) for trial in found.plan())
    assert np.allclose(whole.images["CT"][:, list(two.slices)], two.images["CT"], atol=0.02)


def test_without_cdm_its_rows_are_left_out_in_words(tiny_prior, tmp_path):
    found = evaluation(tiny_prior, tmp_path, CDM_ROWS[:1], models=tmp_path)
    assert found.plan() == [] and "cdm.pt is not beside the evaluated prior" in found.left_out["cdm"]


def test_a_cdm_of_another_grid_beside_the_prior_stops_no_evaluation(tiny_prior, tmp_path):
    """The released CDM lies beside a user's own prior: what was measured is reported, and CDM is left out in words."""
    saved_cdm(tmp_path / "models")
    for methods in (METHODS[:1], METHODS[:1] + CDM_ROWS[:1]):
        whole = evaluation(tiny_prior, tmp_path / "out", methods, models=tmp_path / "models")
        publish(whole, whole.run())
    text = (tmp_path / "out" / "report.md").read_text()
    assert "were trained with another matrix each" in whole.left_out["cdm"] and whole.left_out["cdm"] in text
    assert whole.checksums == [tiny_prior.card.sha256]
    (tmp_path / "models" / "cdm.json").write_text("{")  # what is broken is no one's choice
    with pytest.raises(Any2allError, match="cannot be read"):
        evaluation(tiny_prior, None, CDM_ROWS[:1], models=tmp_path / "models")


@pytest.mark.parametrize("change", [{"matrix": (64, 32)}, {"spacing_mm": (4.0, 4.0, 6.0)}])
def test_a_prior_of_another_grid_is_left_out_in_words(change, tiny_prior, tmp_path):
    save_prior(tiny_prior.network, replace(tiny_prior.card, **change), tmp_path / "other.pt")
    methods = [*METHODS[:1], {"name": "a", "sampler": "mds", "steps": 2, "model": "other.pt"}]
    whole = evaluation(tiny_prior, None, methods, models=tmp_path)
    assert len(whole.run()) == 1 and "other.pt has another grid or stack" in whole.left_out["a"]
