"""Tasks, methods, records and the table, on a tiny prior that knows nothing."""

import csv
import json
import math
from pathlib import Path

import any2all
import numpy as np
import pytest
import torch
from any2all.errors import Any2allError
from any2all.evaluation.evaluate import Evaluation
from any2all.evaluation.records import Record, RecordFile
from any2all.evaluation.tasks import Method, Task, chosen
from any2all.evaluation.tune import variations
from any2all.stack import load_stack

STACK = load_stack()
CONFIG = Path(any2all.__file__).parents[1] / "configs" / "evaluate.json"
SIMULATION = {"acceleration": 4, "noise_std": 0.01, "seed": 0}


def truth():
    """Six slices (6, 6, 32, 32) in u: discs of another brightness in every channel."""
    h, w = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="ij")
    radius = torch.linspace(0.5, 0.8, 6)[:, None, None, None]
    disc = ((h**2 + w**2)[None, None] < radius**2).float()
    return disc * (torch.linspace(0.2, 0.8, 6)[None, :, None, None] + 0.1 * torch.sin(9 * h + 5 * w))


def evaluation(prior, folder, methods, tasks=None, **changes):
    tasks = tasks or [Task("R4+T1", ("T2FLAIR",), ("T1",), ("T2FLAIR",)), Task("T1", ("CT", "PET"), ("T1",))]
    settings = {"simulation": SIMULATION, "output_dir": folder, **changes}
    return Evaluation(prior, truth(), tasks, [Method.from_dict(m) for m in methods], **settings)


def record(estimates, true, method="m"):
    slices = list(range(len(true)))
    return Record.of(estimates, true, slices, ("task", "CT", method), passes=5, seconds=0.1, fingerprint="f")


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


def test_every_entry_of_the_config_is_valid_and_methods_meet_the_tasks_that_suit_them():
    config = json.loads(CONFIG.read_text())
    tasks = {t.name: t for t in (Task.from_dict(entry, STACK) for entry in config["task_list"])}
    methods = {m.name: m for m in (Method.from_dict(entry) for entry in config["method_list"])}
    for method in methods.values():
        method.build(STACK)
        assert set(method.tasks or ()) <= set(tasks)
    assert methods["mcs-1"].applies_to(tasks["T1"], "per_modality")
    assert not methods["mcs-1"].applies_to(tasks["R4"], "per_modality")
    assert not methods["mcs-5"].applies_to(tasks["T1"], "shared")
    assert not methods["mcs-20-moment"].applies_to(tasks["all-MR"], "per_modality")
    assert methods["mds-150"].applies_to(tasks["R4-of-three"], "shared")
    assert sum(methods["mps-1000"].applies_to(t, "per_modality") for t in tasks.values()) == 4
    assert methods["mps-1000"].chosen_slices(6) == [2, 3] and methods["mds-150"].chosen_slices(2) == [0, 1]


@pytest.mark.parametrize("entry, key", [
    ({"name": "a", "sampler": "dps"}, "method_list.sampler"),
    ({"name": "a", "sampler": "mcs", "stesp": 5}, "method_list.a"),
])  # fmt: skip
def test_a_method_that_does_not_exist_is_refused(entry, key):
    with pytest.raises(Any2allError) as caught:
        Method.from_dict(entry)
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
    {"name": "mcs-1", "sampler": "mcs", "steps": 1},
    {"name": "mcs-5", "sampler": "mcs", "steps": 5, "samples": 2, "consistency": "calibrated"},
    {"name": "mds", "sampler": "mds", "steps": 3, "slices": 2},
]


def test_a_table_is_measured_written_and_printed(tiny_prior, tmp_path, capsys):
    records = evaluation(tiny_prior, tmp_path / "out", METHODS).run()
    found = {(r.task, r.target, r.method): r for r in records}
    assert found["R4+T1", "T2FLAIR", "zero_filled"].psnr < found["R4+T1", "T2FLAIR", "SENSE"].psnr
    assert ("R4+T1", "T2FLAIR", "mcs-1") not in found and found["T1", "CT", "mcs-1"].passes == 1
    assert found["T1", "PET", "mcs-5"].samples == 2 and found["T1", "PET", "mds"].slices == [2, 3]
    text = (tmp_path / "out" / "table.md").read_text()
    assert text.strip() in capsys.readouterr().out
    for words in ("inverse crime", "no real CT or PET", "no mean training image", "on slices 2, 3 only"):
        assert words in text
    rows = list(csv.DictReader((tmp_path / "out" / "table.csv").open()))
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


def test_what_was_measured_is_not_measured_again(tiny_prior, tmp_path, monkeypatch):
    first = evaluation(tiny_prior, tmp_path, METHODS).run()
    measured = []
    original = Evaluation.measure

    def counting(self, task, method, progress):
        measured.append((task.name, method.name))
        return original(self, task, method, progress)

    monkeypatch.setattr(Evaluation, "measure", counting)
    again = evaluation(tiny_prior, tmp_path, METHODS).run()
    assert measured == []
    assert [r.psnr for r in again] == [r.psnr for r in first]
    evaluation(tiny_prior, tmp_path, [{**METHODS[1], "eta": 0.5}], seed=0).run()
    assert measured == [("R4+T1", "mcs-5"), ("T1", "mcs-5")]
    evaluation(tiny_prior, tmp_path, METHODS[:1], simulation={"acceleration": 2}).run()
    assert measured[2:] == [("T1", "mcs-1")]


def test_a_file_that_is_no_record_file_is_refused(tmp_path):
    (tmp_path / "results.json").write_text("[1, 2")
    with pytest.raises(Any2allError, match="earlier results"):
        RecordFile(tmp_path / "results.json")


def test_the_mean_image_is_the_rival_of_synthetic_images(tiny_prior):
    mean = truth().mean(dim=0).numpy()
    records = evaluation(tiny_prior, None, [], mean_image=mean).run()
    expected = -10 * np.log10(((mean - truth().numpy())[:, 4] ** 2).mean())
    assert {(r.target, r.method): r.psnr for r in records}["CT", "mean_image"] == pytest.approx(expected, abs=1e-3)


def test_settings_to_try_are_every_combination():
    tried = variations({"name": "m", "sampler": "mds"}, ["gamma=1,5", "eta_convention=dds,ddim"])
    assert [(m["gamma"], m["eta_convention"]) for m in tried] == [(1, "dds"), (1, "ddim"), (5, "dds"), (5, "ddim")]
    assert tried[3]["name"] == "gamma=5 eta_convention=ddim"
    with pytest.raises(Any2allError):
        variations({"name": "m"}, ["gamma"])
