"""What `dmoe serve` is told: made from its arguments, and handed to its worker processes."""

import os
from dataclasses import asdict, dataclass
from typing import Literal

from dmoe.json_text import format_json, parse_json

VARIABLE = "DMOE_SERVE"


@dataclass(frozen=True)
class ServeOptions:
    """
    Attributes:
        model: a scorer's folder, or a pointer file whose first line names one; empty where there is a split.
        name: of the model in the protocol.
        batch_rows, batch_us: of a batch at most, and how long its first request waits for others, in microseconds.
        queue_rows: that may wait; beyond, requests are refused with 503.
        deadline_ms: of a request, from its arrival on; beyond, 504.
        body_mib, rows: of a request at most; beyond, 413.
        read_seconds: in which a request's body has to arrive; beyond, 408.
        follow_seconds: between two looks at the pointer file.
        token: that requests bring as `Authorization: Bearer`; none where empty.
        threads: of matrix products, a process.
        split: the file of an A/B test's split; none where empty.
        engine: of the scorers, as Scorer has it.
    """

    model: str
    name: str = "dmoe"
    batch_rows: int = 4096
    batch_us: int = 200
    queue_rows: int = 65_536
    deadline_ms: int = 2000
    body_mib: int = 16
    rows: int = 65_536
    read_seconds: float = 10.0
    follow_seconds: float = 1.0
    token: str = ""
    threads: int = 1
    split: str = ""
    engine: Literal["torch", "onnx"] | None = None

    def to_environment(self) -> None:
        """For worker processes, which inherit it; not on a command line, where others could read the token."""
        os.environ[VARIABLE] = format_json(asdict(self))


def from_environment() -> ServeOptions:
    return ServeOptions(**parse_json(os.environ[VARIABLE].encode()))
