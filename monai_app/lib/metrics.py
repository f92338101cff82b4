"""Numbers for Prometheus: queue, jobs by how they ended, seconds by stage."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from .jobs import Job, JobBook

SECONDS = (0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)


class Metrics:
    """One server's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.jobs = Counter("any2all_jobs", "Jobs by the state they ended in", ["state"], registry=self.registry)
        self.failures = Counter("any2all_failures", "Failed jobs by error code", ["code"], registry=self.registry)
        self.stages = Histogram(
            "any2all_stage_seconds", "Seconds of a job's stage", ["stage"], buckets=SECONDS, registry=self.registry
        )
        self.waiting = Gauge("any2all_queue_length", "Jobs that wait", registry=self.registry)
        self.running = Gauge("any2all_jobs_running", "Jobs that run", registry=self.registry)

    def ended(self, job: Job) -> None:
        """Count a job that has ended."""
        self.jobs.labels(job.state).inc()
        if job.state == "failed" and job.error:
            self.failures.labels(job.error["code"]).inc()
        for stage, seconds in job.seconds.items():
            self.stages.labels(stage).observe(seconds)

    def page(self, book: JobBook) -> bytes:
        """The text that Prometheus scrapes."""
        self.waiting.set(len(book.queued()))
        self.running.set(int(book.running() is not None))
        return generate_latest(self.registry)
