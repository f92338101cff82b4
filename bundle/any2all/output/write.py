"""Results appear whole or not at all.

Everything is written into a hidden sibling folder, which is renamed into place at the end. A folder that already
holds something gets the files by renames that are taken back when one fails, so old results stay until new ones are
complete, and files that are not ours are never touched.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import Any2allError
from ..geometry import Volume
from ..stack import Stack
from .report import draw_report
from .results import ModalityResult, Result
from .summary import summarise
from .volumes import save_volume

SUMMARY = "summary.json"
REPORT = "report.png"
SAMPLES = "samples"


def write_results(
    result: Result, folder: str | Path, stack: Stack, overwrite: bool = False, slice_index: int | None = None
) -> Path:
    """Write volumes, ``report.png`` and ``summary.json`` (contract 2).

    Args:
        result: what the pipeline made; samples are written where it holds them.
        folder: made if it does not exist.
        overwrite: replace results of an earlier run.
        slice_index: which axial slice the report shows (see `draw_report`).

    Returns:
        The folder.

    Raises:
        Any2allError: results are there already and ``overwrite`` is not given, files of somebody else would be
            replaced, or the disk is full (code ``storage``). Nothing is left behind then.
    """
    with whole_folder(folder, [output.name for output in result.outputs], overwrite) as partial:
        _write_all(result, partial, stack, slice_index)
    return Path(os.path.realpath(folder))


@contextmanager
def whole_folder(folder: str | Path, outputs: list[str], overwrite: bool) -> Iterator[Path]:
    """A folder to write into, whose files appear in ``folder`` together when the block ends well, and else not at all.

    A ``summary.json`` with ``any2all_summary`` and ``files`` has to be among them, so that a later run knows them.

    Raises:
        Any2allError: see `write_results`.
    """
    folder = Path(os.path.realpath(folder))
    check_folder(folder, outputs, overwrite)
    try:
        with _made_parents(folder), _partial(folder) as partial:
            yield partial
            _publish(partial, folder)
    except OSError as error:
        raise _not_written(folder, error) from error


def check_folder(folder: str | Path, outputs: list[str], overwrite: bool) -> None:
    """Refuse a folder that the results must not go to; call it before the work starts, too.

    Raises:
        Any2allError: see `write_results`.
    """
    folder = Path(os.path.realpath(folder))
    _check_writable(folder)
    if not folder.exists():
        return
    if not folder.is_dir():
        raise Any2allError("this is not a folder", key="output_dir", value=str(folder), code="exists")
    ours = _files_of_earlier_run(folder)
    if ours and not overwrite:
        raise Any2allError(
            "the folder already holds results",
            key="output_dir",
            value=str(folder),
            hint="choose another one or allow overwrite",
            code="exists",
        )
    names = [SUMMARY, REPORT, SAMPLES, *(f"{n}{end}.nii.gz" for n in outputs for end in ("", "_std"))]
    refuse_foreign([name for name in names if (folder / name).exists() and name not in ours])


def _check_writable(folder: Path) -> None:
    """Refuse a place where nothing can be written; the folders above are not made yet, as other ranks may need them."""
    try:
        above = next((path for path in folder.parents if path.exists()), folder)
        with _partial(above / folder.name):
            pass
    except OSError as error:
        raise _not_written(folder, error) from error


def _not_written(folder: Path, error: OSError) -> Any2allError:
    return Any2allError(
        f"the results could not be written: {error.strerror or error}",
        key="output_dir",
        value=str(folder),
        hint="nothing new was left there",
        code="storage",
    )


def refuse_foreign(names: list[str]) -> None:
    """Refuse to replace files of an output folder that are somebody else's. Raises Any2allError where there are any."""
    if names:
        raise Any2allError(
            "the folder holds files that are no results and would be replaced",
            key="output_dir",
            value=", ".join(names),
            hint="choose another folder",
            code="exists",
        )


def sweep(folder: Path) -> None:
    """Take away what a process left that was killed while it wrote this folder (see `whole_folder`)."""
    for left in folder.parent.glob(f".{glob.escape(folder.name)}.????????.partial"):
        shutil.rmtree(left, ignore_errors=True)


def _files_of_earlier_run(folder: Path) -> set[str]:
    """Top-level names that an earlier run's summary lists; empty when the folder holds no results."""
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        files = summary["files"] if "any2all_summary" in summary else []
        return {name for name in (str(f).split("/")[0] for f in files) if _is_result_name(name)}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _is_result_name(name: str) -> bool:
    return name in (SUMMARY, SAMPLES) or (name.endswith((".nii.gz", ".png")) and "\\" not in name)


@contextmanager
def _made_parents(folder: Path) -> Iterator[None]:
    """The folders above, made where needed and taken away again on failure."""
    made = [p for p in folder.parents if not p.exists()]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for path in made:
            with suppress(OSError):
                path.rmdir()
        raise


@contextmanager
def _partial(folder: Path) -> Iterator[Path]:
    """A hidden sibling that is gone afterwards, whatever happens (Ctrl-C included)."""
    partial = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}.partial"
    try:
        partial.mkdir()
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_all(result: Result, folder: Path, stack: Stack, slice_index: int | None) -> None:
    for output in result.outputs:
        _write_modality(output, result, folder)
    figure = draw_report(result, stack, slice_index)
    figure.savefig(folder / REPORT, facecolor=figure.get_facecolor())
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    summary = summarise(result, stack, [*names, SUMMARY])
    (folder / SUMMARY).write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _write_modality(output: ModalityResult, result: Result, folder: Path) -> None:
    def save(name: str, volume: Volume, statistic: str) -> None:
        origin = {
            **result.provenance,
            "subject": result.subject,
            "modality": output.name,
            "role": output.role,
            "statistic": statistic,
            "units": output.units,
        }
        save_volume(folder / name, volume, origin, result.reference_file)

    save(f"{output.name}.nii.gz", output.mean, "mean")
    if output.std is not None:
        save(f"{output.name}_std.nii.gz", output.std, "std")
    if output.samples:
        (folder / SAMPLES).mkdir(exist_ok=True)
    for i, sample in enumerate(output.samples):
        save(f"{SAMPLES}/{output.name}_{i}.nii.gz", sample, f"sample {i}")


def _publish(partial: Path, folder: Path) -> None:
    """Bring the finished files into place by renames only."""
    if not folder.exists() or not any(folder.iterdir()):
        with suppress(FileNotFoundError):
            folder.rmdir()
        partial.rename(folder)
        return
    old = sorted(_files_of_earlier_run(folder))
    new = sorted(p.name for p in partial.iterdir())
    with _partial(folder) as backup:
        done: list[tuple[Path, Path]] = []
        try:
            for source, target, names in ((folder, backup, old), (partial, folder, new)):
                for name in names:
                    if (source / name).exists():
                        done.append((source / name, target / name))  # first, so that Ctrl-C between both is undone
                        (source / name).rename(target / name)
        except BaseException:
            for source, target in reversed(done):
                if target.exists():
                    target.rename(source)
            raise
