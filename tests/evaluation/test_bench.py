"""What the bench measures: seconds inside and outside the network, passes, memory, and the table of all methods."""

import json
import time
from dataclasses import replace

import pytest
import torch
from any2all.bench import presets, rivals, translation
from any2all.bench.meter import measured
from any2all.bench.rivals import Row
from any2all.cdm.predictor import load_cdm
from any2all.evaluation.tasks import Method
from any2all.study import load_study

CPU = torch.device("cpu")


class Slow(torch.nn.Module):
    """Takes 20 ms forwards."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)

    def forward(self, x):
        time.sleep(0.02)
        return self.linear(x)


def test_time_in_the_network_is_told_from_time_outside():
    network = Slow()
    with measured(network, CPU) as cost:
        for _ in range(3):
            x = torch.ones(2, 4, requires_grad=True)
            y = network(x)
            time.sleep(0.02)
            torch.autograd.grad(y.sum(), x)
    assert (cost.forwards, cost.backwards) == (3, 3)
    assert 0.06 <= cost.network_seconds < cost.seconds - 0.06 + 1e-3
    assert cost.overhead == pytest.approx(cost.seconds / cost.network_seconds - 1)
    network(torch.ones(2, 4))
    assert cost.forwards == 3  # hooks are gone
    with measured(network, CPU) as idle:
        pass
    assert idle.overhead is None


def test_peak_memory_is_what_was_held_at_once():
    with measured(Slow(), CPU) as cost:
        for _ in range(4):
            held = torch.ones(64 * 2**20 // 4)
            del held
    if cost.peak_mib is None:
        pytest.skip("this system does not tell the peak memory of a process")
    assert 48 < cost.peak_mib < 160  # one tensor of 64 MiB, not four


def test_every_method_of_the_prior_is_timed_once_and_scaled_to_its_steps(tiny_prior, tmp_path, monkeypatch):
    monkeypatch.setattr(rivals, "MOST_STEPS", 5)
    config = json.loads(rivals.CONFIG.read_text())
    kept = {"SENSE", "mcs-5", "mds-150", "mps-1000", "mps-1000-shared", "mcs-10", "mcs-10x16", "mcs-1"}
    config["method_list"] = [m for m in config["method_list"] if m["name"] in kept]
    file = tmp_path / "evaluate.json"
    file.write_text(json.dumps(config))
    image = torch.rand(2, 32, 32, generator=torch.Generator().manual_seed(0))
    found, left_out = rivals.rivals(tiny_prior, image, 16, file)
    rows = {row.name: row for row in found}
    assert left_out == {}
    assert set(rows) == {"SENSE", "mcs-5", "mcs-10", "mds-150", "mps-1000"}  # one task, one prior, no repeats
    assert rows["SENSE"].overhead is None and rows["SENSE"].passes == 0
    assert rows["mps-1000"].passes == 2000 and rows["mps-1000"].part == "5 of 1000 steps"
    assert rows["mcs-5"].passes == 5 and rows["mcs-5"].part == ""
    assert rows["mds-150"].overhead > 0 and rows["mds-150"].per_100 == pytest.approx(50 * rows["mds-150"].seconds)


def test_methods_that_differ_in_samples_only_are_timed_once():
    first = Method("mcs-10", sampler="mcs", steps=10, samples=4)
    methods = [first, replace(first, name="mcs-10x16", samples=16), replace(first, name="mcs-20", steps=20)]
    assert [rivals._repeats(m, methods) for m in methods] == [False, True, False]


def test_the_table_gives_ratios():
    rows = [Row("mds-150", 4, 150, 8.0, 0.031, 120.4), Row("SENSE", 4, 0, 2.0, None, None), ]  # fmt: skip
    lines = rivals.table(rows, "mds-150").splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert cells[2] == ["mds-150", "150", "200.0", "1.000", "3.1 %", "120", "all steps"]
    assert cells[3] == ["SENSE", "–", "50.0", "0.250", "–", "n/a", "all steps"]


def test_cdm_is_timed_beside_mds_on_the_images_of_the_study(tiny_prior, tiny_cdm_file, small_study, monkeypatch):
    monkeypatch.setattr(translation, "MDS_STEPS", 6)
    spec = load_study(small_study / "study.json", tiny_prior.stack)
    assert spec.undersampled == ("T2FLAIR",) and translation.images_only(spec).measured == ()
    rows = translation.rows(spec, tiny_prior, load_cdm(tiny_cdm_file, autocast=False), 3)
    assert [(r["name"], r["passes"], r["slices"]) for r in rows] == [
        ("mds-6", 6, 3),
        ("cdm", 1, 3),
        ("cdm, 4 samples", 4, 3),
    ]
    assert all(r["seconds"] > 0 for r in rows) and presets.table(rows).splitlines()[0].endswith("ratio to mds-6 |")
