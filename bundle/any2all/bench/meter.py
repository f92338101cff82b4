"""What a computation costs: seconds, seconds inside the network, and the most memory it held."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"
MIB = 2**20


@dataclass
class Cost:
    """Filled when `measured` ends.

    Attributes:
        seconds: of everything.
        network_seconds: inside the network, forwards and backwards.
        forwards, backwards: how often.
        peak_mib: most memory above what was held before; None where the system does not tell.
    """

    seconds: float = 0.0
    network_seconds: float = 0.0
    forwards: int = 0
    backwards: int = 0
    peak_mib: float | None = None

    @property
    def overhead(self) -> float | None:
        """Time outside the network over time inside it; None where no network ran."""
        return self.seconds / self.network_seconds - 1 if self.network_seconds > 0 else None


@contextmanager
def measured(network: nn.Module, device: torch.device) -> Iterator[Cost]:
    """Measure the body of a ``with``. Hooks on the network read the clock at the ends of each forward and backward.

    On a GPU every reading waits for it, so that work is charged to whoever asked for it; this slows everything a
    little. Time of the hooks themselves counts as overhead.
    """
    cost, begun = Cost(), [0.0]

    def begin(*_: object) -> None:
        begun[0] = _now(device)

    def end_forward(*_: object) -> None:
        cost.network_seconds += _now(device) - begun[0]
        cost.forwards += 1

    def end_backward(*_: object) -> None:
        cost.network_seconds += _now(device) - begun[0]
        cost.backwards += 1

    handles = [
        network.register_forward_pre_hook(begin),
        network.register_forward_hook(end_forward),
        network.register_full_backward_pre_hook(begin),
        network.register_full_backward_hook(end_backward),
    ]
    before = _reset_peak(device)
    started = _now(device)
    try:
        yield cost
    finally:
        cost.seconds = _now(device) - started
        peak = _peak(device)
        cost.peak_mib = None if before is None or peak is None else max(peak - before, 0) / MIB
        for handle in handles:
            handle.remove()


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _reset_peak(device: torch.device) -> int | None:
    """Forget the highest use so far; what is used now, bytes."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    _return_free_pages()
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:
        return None
    return _status("VmRSS")


def _return_free_pages() -> None:
    """Give what the process holds but does not use back to the system; else a later peak hides in it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; other C libraries have none
    if trim is not None:
        trim(0)


def _peak(device: torch.device) -> int | None:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _status("VmHWM")


def _status(key: str) -> int | None:
    """A line of Linux's account of this process, bytes."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    found = next((line for line in lines if line.startswith(f"{key}:")), None)
    return None if found is None else 1024 * int(found.split()[1])
