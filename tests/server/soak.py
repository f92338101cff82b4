"""``make soak``: many tiny jobs on a real server. Memory and folders must not grow.

After the 20th job and after the last one the resident memory of the server and of its worker is read, and everything
that a job could leave behind is looked for. Ends with status 1 where memory grew by more than 5 % or anything is left.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import time
from pathlib import Path

import psutil
from server_builders import REPOSITORY, Server, study

MOST_GROWTH = 0.05
FIRST_LOOK = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100)
    jobs = parser.parse_args().jobs
    with tempfile.TemporaryDirectory() as folder:
        server = prepared(Path(folder))
        try:
            raise SystemExit(soak(server, Path(folder) / "files", jobs))
        finally:
            server.stop()


def soak(server: Server, files: Path, jobs: int) -> int:
    started, first = time.monotonic(), {}
    for number in range(1, jobs + 1):
        document = study(steps=5, samples=1 + number % 2, outputs=("CT", "T2FLAIR"), raw=True)
        job = server.submit(files, document).json()["job_id"]
        if number % 5 == 0:
            server.http.delete(f"/any2all/v1/jobs/{job}")
            server.wait(job)
        else:
            assert server.wait(job)["state"] == "done"
        server.http.delete(f"/any2all/v1/jobs/{job}")
        if number == min(FIRST_LOOK, jobs):
            first = memory(server)
    last, left = memory(server), list((server.work / "jobs").iterdir())
    print(f"{jobs} jobs in {time.monotonic() - started:.0f} s; left behind: {len(left)} folders")
    grown = False
    for name, mib in last.items():
        share = mib / first[name] - 1
        grown |= share > MOST_GROWTH
        print(f"{name}: {first[name]:.0f} MiB after {FIRST_LOOK} jobs, {mib:.0f} MiB after {jobs} ({share:+.1%})")
    return int(grown or bool(left))


def memory(server: Server) -> dict[str, float]:
    """Resident MiB of the server and of its worker."""
    process = psutil.Process(server.process.pid)
    (worker,) = [child for child in process.children() if "lib.worker" in child.cmdline()]
    return {name: p.memory_info().rss / 2**20 for name, p in (("server", process), ("worker", worker))}


def prepared(folder: Path) -> Server:
    """A server with the tiny prior; the phantom's images are in ``files``."""
    spec = importlib.util.spec_from_file_location("shared_fixtures", REPOSITORY / "tests" / "conftest.py")
    fixtures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fixtures)
    for name in ("T1", "T2", "T2FLAIR"):
        fixtures.write_phantom(folder / "files", name)
    return Server(folder, fixtures.write_tiny_model(folder))


if __name__ == "__main__":
    sys.exit(main())
