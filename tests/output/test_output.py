"""Contract 2: volumes on the reference grid with their origin, whole or not at all, and a picture that is right."""

import errno
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from any2all.errors import Any2allError
from any2all.geometry import Grid, Volume, read_volume
from any2all.output import ModalityResult, Result, draw_report, read_provenance, write_results
from any2all.output.write import check_folder
from any2all.stack import load_stack
from scipy.spatial.transform import Rotation

STACK = load_stack()


def oblique(spacing=(0.9, 1.1, 3.0), flips=(-1, 1, 1)):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", (4, -7, 11), degrees=True).as_matrix() * spacing * np.array(flips)
    affine[:3, 3] = (37.123456, -61.98765, -20.5)
    return affine


def ball(shape=(40, 44, 20), value=600.0):
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    return np.where(sum(a**2 for a in axes) < 0.8, value, 0.0).astype(np.float32)


def outcome(affine=None, samples=(), **changes):
    grid = Grid((40, 44, 20), oblique() if affine is None else affine)
    volume = Volume(ball(), grid)
    noise = Volume(np.abs(np.random.default_rng(0).normal(0, 40, grid.shape)), grid)
    flair = ModalityResult(
        "T2FLAIR", "reconstructed", volume, "a.u.", noise, samples, (3, 3, 3), Volume(ball() * 0.9, grid), volume,
        {"psnr": float("inf"), "ssim": 0.9, "psnr_SENSE": np.float32(25.0)},
    )  # fmt: skip
    ct = ModalityResult("CT", "synthetic", Volume(ball(value=1040.0) - 1000, grid), "HU")
    fields = {"subject": "p01", "reference": volume, "given": {"T1": volume}, "outputs": [flair, ct],
              "warnings": ["something to know"], "provenance": {"prior": {"sha256": "ab" * 32}, "seed": 3},
              "seconds": {"sampler": 1.5, "never": float("nan")}}  # fmt: skip
    return Result(**{**fields, **changes})


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("out") / "new" / "results"
    grid = outcome().reference.grid
    sample = Volume(ball(), grid)
    return write_results(outcome(samples=(sample, sample)), folder, STACK)


def test_everything_is_there_and_nothing_else(written):
    names = sorted(p.relative_to(written).as_posix() for p in written.rglob("*") if p.is_file())
    assert names == [
        "CT.nii.gz",
        "T2FLAIR.nii.gz",
        "T2FLAIR_std.nii.gz",
        "report.png",
        "samples/T2FLAIR_0.nii.gz",
        "samples/T2FLAIR_1.nii.gz",
        "summary.json",
    ]
    assert [p.name for p in written.parent.iterdir()] == ["results"]


def test_volumes_lie_exactly_on_the_reference_grid(written):
    for path in written.rglob("*.nii.gz"):
        image = nib.load(path)
        assert image.shape == (40, 44, 20) and image.get_data_dtype() == np.float32
        assert np.abs(image.affine - oblique()).max() < 1e-5
        assert np.abs(image.get_qform() - oblique()).max() < 1e-4
        assert image.header.get_xyzt_units()[0] == "mm"
    assert np.array_equal(read_volume(written / "T2FLAIR.nii.gz", "k").data, ball())


def test_every_volume_says_that_it_was_made(written):
    for path in written.rglob("*.nii.gz"):
        words = nib.load(path).header["descrip"].tobytes().rstrip(b"\0").decode()
        role = "SYNTHETIC" if path.name.startswith("CT") else "RECONSTRUCTED"
        assert words.startswith(f"{role} Any2all")
        origin = read_provenance(path)
        assert origin["role"] == role.lower() and origin["seed"] == 3 and origin["prior"]["sha256"] == "ab" * 32
    assert read_provenance(written / "T2FLAIR_std.nii.gz")["statistic"] == "std"


def test_summary_is_plain_json_with_nulls(written):
    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    summary = json.loads((written / "summary.json").read_text(), parse_constant=refuse)
    assert summary["outputs"]["T2FLAIR"]["metrics"] == {"psnr": None, "ssim": 0.9, "psnr_SENSE": 25.0}
    assert summary["seconds"] == {"sampler": 1.5, "never": None}
    assert summary["outputs"]["CT"]["std"] is None and "one sample" in summary["outputs"]["CT"]["std_note"]
    assert "haemorrhage" in summary["outputs"]["CT"]["caption"]
    assert all((written / name).is_file() for name in summary["files"])


def test_the_references_own_header_geometry_is_kept(tmp_path):
    image = nib.Nifti1Image(ball(), oblique())
    image.set_sform(oblique(), 4)
    image.set_qform(oblique(), 2)
    nib.save(image, tmp_path / "t1.nii.gz")
    source = nib.load(tmp_path / "t1.nii.gz").header
    reference = read_volume(tmp_path / "t1.nii.gz", "k")
    result = outcome(affine=reference.grid.affine, reference_file=tmp_path / "t1.nii.gz")
    made = nib.load(write_results(result, tmp_path / "out", STACK) / "CT.nii.gz").header
    for name in ("sform_code", "qform_code", "srow_x", "srow_y", "srow_z", "quatern_b", "qoffset_x", "pixdim"):
        assert np.array_equal(made[name], source[name]), name


def test_a_result_with_nan_is_refused(tmp_path):
    result = outcome()
    result.outputs[0].mean.data[3, 3, 3] = np.nan
    with pytest.raises(Any2allError, match="NaN"):
        write_results(result, tmp_path / "out", STACK)
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------ whole or not at all


def contents(folder: Path):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def fail_at_report(monkeypatch, error):
    def broken(*_):
        raise error

    monkeypatch.setattr("any2all.output.write.draw_report", broken)


@pytest.mark.parametrize(
    "error, expected",
    [(OSError(errno.ENOSPC, "No space left on device"), Any2allError), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_a_failure_midway_leaves_nothing(tmp_path, monkeypatch, error, expected):
    fail_at_report(monkeypatch, error)
    with pytest.raises(expected) as caught:
        write_results(outcome(), tmp_path / "a" / "b" / "out", STACK)
    if expected is Any2allError:
        assert caught.value.code == "storage" and "No space left" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_old_results_stay_until_new_ones_are_complete(tmp_path, monkeypatch):
    folder = write_results(outcome(), tmp_path / "out", STACK)
    before = contents(folder)
    with pytest.raises(Any2allError, match="already holds results"):
        write_results(outcome(), folder, STACK)
    with monkeypatch.context() as patch:
        fail_at_report(patch, OSError(errno.ENOSPC, "No space left on device"))
        with pytest.raises(Any2allError, match="No space"):
            write_results(outcome(), folder, STACK, overwrite=True)
    assert contents(folder) == before and [p.name for p in tmp_path.iterdir()] == ["out"]


def test_renames_are_taken_back_when_one_fails(tmp_path, monkeypatch):
    folder = write_results(outcome(), tmp_path / "out", STACK)
    before = contents(folder)
    rename, calls = Path.rename, []

    def flaky(self, target):
        calls.append(target)
        if len(calls) == 7:
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", flaky)
    with pytest.raises(Any2allError, match="Input/output"):
        write_results(outcome(subject="p02"), folder, STACK, overwrite=True)
    assert len(calls) > 7
    assert contents(folder) == before and [p.name for p in tmp_path.iterdir()] == ["out"]


def test_overwrite_replaces_results_and_leaves_other_files_alone(tmp_path):
    folder = write_results(outcome(), tmp_path / "out", STACK)
    (folder / "notes.txt").write_text("mine")
    only_ct = outcome(subject="p02", outputs=outcome().outputs[1:])
    write_results(only_ct, folder, STACK, overwrite=True)
    assert sorted(contents(folder)) == ["CT.nii.gz", "notes.txt", "report.png", "summary.json"]
    assert json.loads((folder / "summary.json").read_text())["subject"] == "p02"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_files_of_somebody_else_are_never_replaced(tmp_path, overwrite):
    (tmp_path / "T2FLAIR.nii.gz").write_bytes(b"my only scan")
    with pytest.raises(Any2allError, match="no results") as caught:
        write_results(outcome(), tmp_path, STACK, overwrite=overwrite)
    assert caught.value.value == "T2FLAIR.nii.gz"
    assert contents(tmp_path) == {"T2FLAIR.nii.gz": b"my only scan"}


def test_a_forged_summary_moves_nothing_out_of_the_folder(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (tmp_path / "other.nii.gz").write_bytes(b"x")
    files = ["../other.nii.gz", "/etc/passwd", "notes.txt", "summary.json"]
    (folder / "summary.json").write_text(json.dumps({"any2all_summary": 1, "files": files}))
    (folder / "notes.txt").write_text("mine")
    write_results(outcome(), folder, STACK, overwrite=True)
    assert (tmp_path / "other.nii.gz").exists() and (folder / "notes.txt").read_text() == "mine"


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "out").write_text("x")
    with pytest.raises(Any2allError, match="not a folder"):
        check_folder(tmp_path / "out", ["CT"], overwrite=True)


# ------------------------------------------------------------------------------------------- the picture


def pixels(figure, label):
    """Mean brightness of the left/right, upper/lower halves of one cell of the drawn report."""
    figure.canvas.draw()
    picture = np.asarray(figure.canvas.buffer_rgba())[..., :3].mean(axis=-1)
    axes = next(a for a in figure.axes if a.get_label() == label)
    box = axes.get_window_extent()
    top, left = round(picture.shape[0] - box.y1), round(box.x0)
    cell = picture[top + 3 : top + round(box.height) - 3, left + 3 : left + round(box.width) - 3]
    middle = np.array(cell.shape) // 2
    return cell, {"left": cell[:, : middle[1]].mean(), "right": cell[:, middle[1] :].mean(),
                  "upper": cell[: middle[0]].mean(), "lower": cell[middle[0] :].mean()}  # fmt: skip


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (1, -1, -1)])
@pytest.mark.parametrize("direction, side, other", [(0, "left", "right"), (1, "upper", "lower")])
def test_right_is_left_and_anterior_is_up_whatever_the_files_axes(flips, direction, side, other):
    affine = np.diag([*(np.array([2.0, 2.0, 4.0]) * flips), 1.0])
    grid = Grid((40, 44, 20), affine)
    x = grid.at(np.stack(np.indices(grid.shape), axis=-1))[..., direction]  # RAS: grows to right, to anterior
    marked = Volume(np.where(x > np.median(x), ball(), 0.15 * ball()), grid)
    synthetic = ModalityResult("T2", "synthetic", marked, "a.u.")
    result = outcome(affine=affine, reference=Volume(ball(), grid), given={"T1": marked}, outputs=[synthetic])
    figure = draw_report(result, STACK)
    for label in ("T1:given", "T2:mean"):
        halves = pixels(figure, label)[1]
        assert halves[side] > 2 * halves[other]


def test_cells_have_the_proportions_of_the_head():
    affine = np.diag([1.0, 2.0, 4.0, 1.0])
    figure = draw_report(outcome(affine=affine), STACK)
    cell, _ = pixels(figure, "T2FLAIR:mean")
    assert cell.shape[0] / cell.shape[1] == pytest.approx(44 * 2 / 40, rel=0.12)


def test_the_picture_names_what_is_made_and_what_it_cannot_show():
    figure = draw_report(outcome(), STACK)
    titles = {a.get_label(): a.get_title(loc="left") for a in figure.axes}
    assert "RECONSTRUCTED" in titles["T2FLAIR:mean"] and "SYNTHETIC" in titles["CT:mean"]
    assert "given" in titles["T1:given"]
    words = " ".join(" ".join(t.get_text() for t in figure.texts).split())
    for text in ("not for diagnosis", "haemorrhage", "something to know", "SENSE 25.0 dB", "SSIM 0.900"):
        assert text in words
    assert any(t.get_text() == "R" for t in next(a for a in figure.axes if a.get_label() == "CT:mean").texts)


def test_every_picture_has_contrast_and_columns_without_content_are_left_out():
    figure = draw_report(outcome(), STACK)
    for label in (
        "T1:given",
        "T2FLAIR:data",
        "T2FLAIR:mean",
        "T2FLAIR:truth",
        "T2FLAIR:error",
        "T2FLAIR:std",
        "CT:mean",
    ):
        assert pixels(figure, label)[0].std() > 10, label
    bare = draw_report(outcome(outputs=outcome().outputs[1:], given={}), STACK)
    assert [a.get_label() for a in bare.axes] == ["CT:mean"]


def test_the_chosen_slice_is_shown():
    result = outcome(affine=np.diag([2.0, 2.0, 4.0, 1.0]))
    middle, end = (pixels(draw_report(result, STACK, i), "T1:given")[0].mean() for i in (10, 2))
    assert middle > 1.5 * end
    with pytest.raises(ValueError, match="slice 99"):
        draw_report(result, STACK, 99)
