"""What the main job hands over: roles, units, origin, spread, scores; the same again from the same seed."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from any2all.diffusion.prior import NetworkPrior, build_network
from any2all.errors import Cancelled
from any2all.intensity import to_u
from any2all.output import read_provenance
from any2all.run import Run
from any2all.spread import pooled_std

FILES = ["CT.nii.gz", "CT_std.nii.gz", "T2FLAIR.nii.gz", "T2FLAIR_std.nii.gz", "report.png", "summary.json"]


def test_roles_units_and_origin_of_the_default_study(desk):
    desk.document["sampler"]["samples"] = 2
    desk.document["save_samples"] = True
    result = desk.run()
    assert sorted(p.name for p in desk.out.iterdir()) == sorted([*FILES, "samples"])
    assert len(list((desk.out / "samples").iterdir())) == 4
    descriptions = {n: desk.output(n).header["descrip"].tobytes().decode() for n in ("T2FLAIR", "CT")}
    assert descriptions["T2FLAIR"].startswith("RECONSTRUCTED Any2all")
    assert descriptions["CT"].startswith("SYNTHETIC Any2all")
    summary = json.loads((desk.out / "summary.json").read_text())
    assert summary["outputs"]["CT"]["units"] == "HU" and summary["provenance"]["seed"] == 0
    assert set(summary["provenance"]["inputs_sha256"]) == {"T1.nii.gz", "T2FLAIR.nii.gz"}
    assert read_provenance(desk.out / "CT.nii.gz")["prior"]["sha256"] == desk.prior.card.sha256
    samples = np.stack([s.data for s in next(o for o in result.outputs if o.name == "CT").samples])
    assert np.allclose(desk.output("CT").get_fdata(), samples.mean(axis=0), atol=1e-2)
    variance, written = samples.var(axis=0, ddof=1), desk.output("CT_std").get_fdata()
    in_plane, spacing = desk.prior.card.spacing_mm[0], np.array(result.reference.grid.spacing_mm)
    pooled = pooled_std(variance, len(samples), np.where(spacing == spacing.max(), 0, in_plane / spacing))
    assert np.allclose(written, pooled, atol=1e-2) and np.abs(written - np.sqrt(variance)).mean() > 1  # HU


def test_samples_of_missing_images_are_centred_and_the_rest_is_as_it_was(desk):
    """The mean written is still that of the samples written, and reconstructions do not change."""
    desk.document["sampler"] |= {"samples": 4, "centre": 0}
    desk.document["save_samples"] = True
    plain = {output.name: output for output in desk.run().outputs}
    del desk.document["sampler"]["centre"]
    centred = {output.name: output for output in desk.run(overwrite=True).outputs}
    np.testing.assert_array_equal(centred["T2FLAIR"].mean.data, plain["T2FLAIR"].mean.data)
    in_hu = np.stack([sample.data for sample in centred["CT"].samples])
    np.testing.assert_allclose(centred["CT"].mean.data, in_hu.mean(axis=0), atol=1e-2)
    assert np.abs(centred["CT"].mean.data - plain["CT"].mean.data).mean() > 1  # HU
    assert json.loads((desk.out / "summary.json").read_text())["provenance"]["sampler"]["centre"] == 0.5


def test_the_network_that_states_means_is_part_of_a_results_origin(desk):
    """It is asked where missing images have several samples, and nowhere else."""
    desk.document["sampler"] |= {"samples": 2}
    by_itself = desk.run().outputs
    torch.manual_seed(3)
    other = build_network(desk.prior.stack, desk.prior.card.network)
    for parameter in other.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    own, card = desk.prior, replace(desk.prior.card, sha256="another")
    desk.prior = NetworkPrior(own.network, own.card, autocast=own.autocast)
    desk.prior.mean_network = NetworkPrior(other, card, autocast=own.autocast)
    stated = desk.run(overwrite=True).outputs
    for before, after in zip(by_itself, stated):
        moved = np.abs(after.mean.data - before.mean.data).mean()
        assert moved > 1 if before.name == "CT" else moved == 0
    assert read_provenance(desk.out / "CT.nii.gz")["prior"]["mean_network"] == "another"
    desk.document["sampler"]["samples"] = 1
    desk.run(overwrite=True)
    assert "mean_network" not in read_provenance(desk.out / "CT.nii.gz")["prior"]


def test_the_std_is_widened_by_the_priors_own_factor_for_mcs_alone(desk):
    desk.document["sampler"]["samples"] = 2
    desk.run()
    plain = {name: desk.output(f"{name}_std").get_fdata() for name in ("CT", "T2FLAIR")}
    card = replace(desk.prior.card, std_scale={"synthetic": {"CT": 1.5}, "reconstructed": {"T2FLAIR": 2.0}})
    desk.prior = NetworkPrior(desk.prior.network, card, autocast=desk.prior.autocast)
    desk.run(overwrite=True)
    for name, factor in (("CT", 1.5), ("T2FLAIR", 2.0)):
        np.testing.assert_allclose(desk.output(f"{name}_std").get_fdata(), factor * plain[name], rtol=1e-3, atol=1e-3)
    assert json.loads((desk.out / "summary.json").read_text())["outputs"]["CT"]["std_scale"] == 1.5
    desk.document["sampler"] = {"name": "mds", "steps": 3, "samples": 2}
    desk.run(overwrite=True)
    assert json.loads((desk.out / "summary.json").read_text())["outputs"]["CT"]["std_scale"] == 1.0


def test_the_expected_time_is_announced_before_sampling(desk):
    said, stages = [], []
    desk.run(
        Run(progress=lambda stage, *_: stages.append(stage), announce=lambda words: said.append((words, stages[-1])))
    )
    ((forecast, last_stage),) = said
    assert forecast.slices == 12 and forecast.seconds > 0
    assert str(forecast).startswith("mcs, 5 steps, 1 sample of 12 slices: about ") and last_stage != "sampling"


def test_values_are_in_units_and_air_is_air(desk):
    """Slices in which no head is seen are not sampled: air, -1000 HU, 0 SUVr and 0 a.u."""

    def two_empty_slices(data):
        data[:, :, 10:] = 0
        return data

    desk.rewrite("T1", two_empty_slices)
    desk.only({"name": "mcs", "steps": 1, "samples": 1}, T1={"status": "available", "file": "T1.nii.gz"}).run()
    ranges = {"CT": (-1000, 2000), "PET": (0, 3), "T2": (0, 1000)}
    for name, (low, high) in ranges.items():
        data = desk.output(name).get_fdata()
        assert low - 1e-2 <= data.min() and data.max() <= high + 1e-2
        assert np.allclose(data[:, :, 11], low) and data[:, :, 5].std() > 0.01 * (high - low)
    assert not (desk.out / "CT_std.nii.gz").exists()


def test_a_reconstruction_keeps_the_units_of_its_data(desk):
    desk.rewrite("T2FLAIR", lambda data: 40 * data)
    desk.document["outputs"] = ["T2FLAIR"]
    desk.run()
    truth, made = desk.image("T2FLAIR").get_fdata(), desk.output("T2FLAIR").get_fdata()
    inside = truth > 0.2 * truth.max()
    assert np.median(made[inside]) == pytest.approx(np.median(truth[inside]), rel=0.1)


def test_scores_and_baselines_are_written_where_the_truth_is_known(desk):
    result = desk.run()
    scores = result.outputs[0].metrics
    assert scores["psnr_zero_filled"] < scores["psnr_SENSE"] < scores["psnr"]
    assert scores["grid"] == "reference" and "[0, 1]" in scores["data_range"]
    written = json.loads((desk.out / "summary.json").read_text())["outputs"]
    assert written["T2FLAIR"]["metrics"]["psnr"] == scores["psnr"] and written["CT"]["metrics"] is None


def test_the_same_seed_gives_the_same_images_and_another_seed_others(desk):
    first = desk.run().outputs[1].mean.data
    assert np.array_equal(desk.run(overwrite=True).outputs[1].mean.data, first)
    desk.document["sampler"]["seed"] = 1
    assert np.abs(desk.run(overwrite=True).outputs[1].mean.data - first).mean() > 1


@pytest.mark.parametrize("sampler", [
    {"name": "mcs", "steps": 5, "samples": 2, "consistency": "calibrated"},
    {"name": "mds", "steps": 6, "samples": 1},
    {"name": "mps", "steps": 4, "samples": 1},
])  # fmt: skip
def test_the_batch_size_changes_no_image(desk, sampler):
    desk.document["sampler"] = sampler
    few, many = (desk.run(Run(batch_size=n), overwrite=True) for n in (3, 64))
    for one, other in zip(few.outputs, many.outputs):
        normalisation, peak = desk.prior.stack[one.name].normalisation, float(other.mean.data.max())
        in_u = [to_u(o.mean.data, normalisation, peak) for o in (one, other)]
        assert np.abs(in_u[0] - in_u[1]).max() < 1e-3, one.name


def test_progress_counts_passes_and_never_runs_backwards(desk):
    seen = []
    desk.run(Run(progress=lambda stage, done, total: seen.append((stage, done, total))))
    stages = list(dict.fromkeys(stage for stage, _, _ in seen))
    assert stages == ["reading", "registration", "measurements", "self-check", "sampling", "restoring", "scores"]
    counts = [done for stage, done, total in seen if stage == "sampling" and total > 1]
    totals = {total for stage, _, total in seen if stage == "sampling" and total > 1}
    assert counts == sorted(counts) and {counts[-1]} == totals == {2 * 5 * 12}, (
        "five passes to reconstruct, five to refill"
    )


def test_cancelling_leaves_nothing(desk):
    asked = iter([False] * 3 + [True] * 100)
    with pytest.raises(Cancelled):
        desk.run(Run(cancelled=lambda: next(asked)))
    assert desk.untouched


def test_ctrl_c_leaves_nothing(desk, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("any2all.output.write.draw_report", interrupted)
    with pytest.raises(KeyboardInterrupt):
        desk.run()
    assert desk.untouched


def test_inputs_of_one_name_in_two_folders_keep_their_own_checksums(desk):
    entries = {}
    for name in ("T1", "T2FLAIR"):
        (desk.folder / name).mkdir()
        (desk.folder / f"{name}.nii.gz").rename(desk.folder / name / "image.nii.gz")
        entries[name] = {"status": "available", "file": f"{name}/image.nii.gz"}
    desk.only({"name": "mcs", "steps": 1, "samples": 1}, **entries)
    desk.document["outputs"] = ["CT"]
    sums = desk.run().provenance["inputs_sha256"]
    assert set(sums) == {"T1/image.nii.gz", "T2FLAIR/image.nii.gz"} and len(set(sums.values())) == 2
