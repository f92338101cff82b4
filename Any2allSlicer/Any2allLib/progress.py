"""How far a job is and how long it still takes, bytes to send and to receive counted in."""

from __future__ import annotations

from dataclasses import dataclass

from .protocol import JobStatus

UPLOAD_SHARE, DOWNLOAD_SHARE = 0.1, 0.1
ENOUGH_S = 1.0  # of sending, before its speed means anything


@dataclass(frozen=True)
class Pace:
    """Bytes ``done`` of ``total`` (0: not known)."""

    done: int
    total: int

    @property
    def share(self) -> float:
        return min(self.done / self.total, 1.0) if self.total else 0.0

    def words(self) -> str:
        return f"{self.done / 1e6:.1f} of {self.total / 1e6:.1f} MB" if self.total else f"{self.done / 1e6:.1f} MB"


class Progress:
    """Fraction and remaining seconds of a job; told by `job.JobRun` what happens.

    Before the first volume has come back, one is taken to need as long as one that was sent.

    Args:
        files: how many are sent; none when the server has the study.
        expected_s: seconds of computing that are foreseen, or None.
    """

    def __init__(self, files: int, expected_s: float | None) -> None:
        self.files, self.expected_s = files, expected_s
        self.fraction = 0.0
        self._begun_s: float | None = None
        self._spent_s = 0.0
        self._upload = Pace(0, 0)
        self._upload_share = UPLOAD_SHARE if files else 0.0
        self._status: JobStatus | None = None
        self._asked_s = 0.0
        self._volumes = 0
        self._received = 0
        self._volume = Pace(0, 0)
        self._receiving_s = 0.0
        self._receiving_since: float | None = None

    def uploading(self, pace: Pace, now: float) -> None:
        """So much of the study has been sent."""
        self._begun_s = now if self._begun_s is None else self._begun_s
        self._spent_s, self._upload = now - self._begun_s, pace
        self._to(self._upload_share * pace.share)

    def uploaded(self) -> None:
        """The server has the study."""
        self._to(self._upload_share)

    def computing(self, status: JobStatus, now: float) -> None:
        """What a poll said."""
        self._status, self._asked_s = status, now
        share = min(max(status.step / status.total, 0.0), 1.0) if status.total else 0.0
        self._to(self._upload_share + (1 - self._upload_share - DOWNLOAD_SHARE) * share)

    def downloading(self, volumes: int) -> None:
        """The job is done; so many volumes are to come."""
        self._volumes = volumes
        self._to(1 - DOWNLOAD_SHARE)

    def one_downloading(self, pace: Pace, now: float) -> None:
        """So much of a volume has come."""
        self._receiving_since = now if self._receiving_since is None else self._receiving_since
        self._receiving_s, self._volume = now - self._receiving_since, pace
        self._to(1 - DOWNLOAD_SHARE * (1 - (self._received + pace.share) / self._volumes))

    def one_downloaded(self) -> None:
        """A volume has come wholly."""
        self._received += 1
        self._volume = Pace(0, 0)
        self._to(1 - DOWNLOAD_SHARE * (1 - self._received / self._volumes))

    def remaining_s(self, now: float) -> float | None:
        """Seconds until the results are here, or None where nothing is known.

        The server foretells its network passes only: nothing is known before they begin, nor once they are over.
        """
        if self._volumes:
            return self._download_s()
        if self._status is None:
            sending = self._upload_s()
            return None if self.expected_s is None or sending is None else self.expected_s + sending + self._return_s()
        left = 0.0 if self._status.eta_s is None else self._status.eta_s - (now - self._asked_s)
        return left + self._return_s() if left > 0 else None

    def detail(self, state: str, stage: str | None) -> str:
        """What is going on, in words."""
        if state == "uploading":
            return self._upload.words() if self._upload.total else ""
        if state == "downloading":
            which = f"volume {min(self._received + 1, self._volumes)} of {self._volumes}"
            return f"{which}, {self._volume.words()}" if self._volume.done else which
        step = f"step {self._status.step} of {self._status.total}" if self._status and self._status.total else ""
        return ", ".join(part for part in (stage or "", step) if part)

    def _to(self, fraction: float) -> None:
        self.fraction = max(self.fraction, min(fraction, 1.0))

    def _upload_s(self) -> float | None:
        if not self.files:
            return 0.0
        if self._spent_s < ENOUGH_S or not self._upload.share:
            return None if self._upload.share < 1 else 0.0
        return self._spent_s * (1 / self._upload.share - 1)

    def _return_s(self) -> float:
        """For the way back of as many volumes as were sent."""
        return self._spent_s

    def _download_s(self) -> float | None:
        received = self._received + self._volume.share
        if not received or not self._receiving_s:
            return self._spent_s or None
        return self._receiving_s * (self._volumes / received - 1)
