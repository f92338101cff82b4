"""The server's part of ``make bench``: what a second client waits for a poll while a study is filled, and for a cancel.

Both servers run the demonstration study with the released prior on this machine, one after the other: ours, and the
same study behind MONAI Label's stock inference route.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
from server_builders import REPOSITORY, Server, wait_until

POLLS, PAUSE_S = 50, 0.05
DEMO, MODEL = REPOSITORY / "bundle" / "demo", REPOSITORY / "bundle" / "models" / "model.pt"


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "ours").mkdir()
        (folder / "stock").mkdir()
        ours, cancels = our_server(folder / "ours")
        stock = stock_server(folder / "stock")
    table = [("server", "polls", "median ms", "largest ms"), ("ours", *ours), ("stock route", *stock)]
    for row in table:
        print("| " + " | ".join(str(cell) for cell in row) + " |")
        if row is table[0]:
            print("|---|---:|---:|---:|")
    print(f"a poll of the stock route waits {stock[1] / ours[1]:.0f} times as long (medians)")
    print(f"cancel is honoured after {statistics.median(cancels):.0f} ms (median of {len(cancels)})")


def our_server(folder: Path) -> tuple[tuple[int, float, float], list[float]]:
    """Polls of a running job, and milliseconds from a cancel to the end of its job."""
    server = Server(folder, MODEL)
    document = json.loads((DEMO / "study.json").read_text())
    try:
        job = server.submit(DEMO, document).json()["job_id"]
        wait_until(lambda: server.status(job)["stage"] == "registration" or server.status(job)["step"] > 0)
        polls = measured(
            lambda: server.http.get(f"/any2all/v1/jobs/{job}"), lambda: server.status(job)["state"] == "running"
        )
        server.http.delete(f"/any2all/v1/jobs/{job}")
        server.wait(job)
        return polls, [cancel_ms(server, document) for _ in range(3)]
    finally:
        server.stop()


def cancel_ms(server: Server, document: dict) -> float:
    job = server.submit(DEMO, document).json()["job_id"]
    wait_until(lambda: server.status(job)["step"] > 0, 120)
    started = time.perf_counter()
    server.http.delete(f"/any2all/v1/jobs/{job}")
    wait_until(lambda: server.status(job)["state"] == "cancelled")
    return 1000 * (time.perf_counter() - started)


def stock_server(folder: Path) -> tuple[int, float, float]:
    """Polls of ``/info/`` while the stock route fills the same study."""
    shutil.copytree(REPOSITORY / "tests" / "server" / "stock_app", folder / "app")
    shutil.copy(DEMO / "T1.nii.gz", _made(folder / "studies") / "head.nii.gz")
    environment = {"BENCH_MODEL": str(MODEL), "BENCH_STUDY": str(DEMO / "study.json")}
    server = Server(folder, MODEL, environment=environment, app=folder / "app", stock=True)
    done = threading.Event()

    def infer() -> None:
        httpx.post(
            f"{server.http.base_url}/infer/any2all?image=head", data={"params": "{}"}, timeout=900, trust_env=False
        )
        done.set()

    try:
        threading.Thread(target=infer, daemon=True).start()
        time.sleep(1.0)
        return measured(lambda: server.http.get("/info/", timeout=900), lambda: not done.is_set())
    finally:
        server.process.kill()


def measured(poll: Callable[[], object], running: Callable[[], bool]) -> tuple[int, float, float]:
    """(number, median, largest) of up to 50 polls in ms, as long as the study is being filled."""
    times: list[float] = []
    while len(times) < POLLS and running():
        started = time.perf_counter()
        poll()
        times.append(1000 * (time.perf_counter() - started))
        time.sleep(PAUSE_S)
    return len(times), round(statistics.median(times), 1), round(max(times), 1)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


if __name__ == "__main__":
    os.environ.setdefault("NO_PROXY", "127.0.0.1")
    main()
