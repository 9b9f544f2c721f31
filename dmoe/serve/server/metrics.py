"""Prometheus metrics, summed over all worker processes."""

import os
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

MILLISECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)


class Metrics:
    """The metrics of one process; `text` gives those of all processes."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        made = self.registry
        self.requests = Counter("dmoe_requests", "answered requests", ["path", "status"], registry=made)
        self.seconds = Histogram("dmoe_request_seconds", "from the arrival of a request to its answer", buckets=MILLISECONDS, registry=made)
        self.rows = Counter("dmoe_rows", "scored rows", registry=made)
        self.batch_rows = Histogram("dmoe_batch_rows", "rows of a call of the model", buckets=ROWS, registry=made)
        self.batch_requests = Histogram("dmoe_batch_requests", "requests of a call of the model", buckets=ROWS, registry=made)
        self.scores = Counter("dmoe_score_sum", "sum of all probabilities; over dmoe_rows, the mean", registry=made)
        self.values = Counter("dmoe_values", "categorical values of raw rows, missing ones included", registry=made)
        self.unknown = Counter("dmoe_unknown_values", "those of them that training did not have", registry=made)
        self.waiting = Gauge("dmoe_waiting_rows", "rows that wait", multiprocess_mode="livesum", registry=made)
        self.version = Gauge("dmoe_version", "1 for the version that answers", ["version"], multiprocess_mode="livemax", registry=made)
        self.arm_rows = Counter("dmoe_arm_rows", "scored rows of an arm of the A/B test", ["arm"], registry=made)
        self.exposures = Counter("dmoe_exposure_rows", "logged exposures, by state: written or lost", ["state"], registry=made)
        self.shadow_rows = Counter(
            "dmoe_shadow_rows", "by state: scored, failed, or dropped as its queue was full", ["state"], registry=made
        )

    def scored(self, rows: int, requests: int) -> None:
        self.batch_rows.observe(rows)
        self.batch_requests.observe(requests)

    def answered(self, score_B: np.ndarray) -> None:
        self.rows.inc(len(score_B))
        self.scores.inc(float(score_B.sum(dtype=np.float64)))

    def text(self) -> bytes:
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return bytes(generate_latest(self.registry))
        forget_dead(os.environ["PROMETHEUS_MULTIPROC_DIR"])
        every = CollectorRegistry()
        multiprocess.MultiProcessCollector(every)
        return bytes(generate_latest(every))


def forget_dead(folder: str) -> None:
    """Removes the gauges of worker processes that were killed: their version does not answer any more."""
    for pid in {path.stem.rpartition("_")[2] for path in Path(folder).glob("gauge_live*.db")}:
        if not Path(f"/proc/{pid}").exists():
            multiprocess.mark_process_dead(int(pid), folder)
