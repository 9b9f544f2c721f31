"""Options of `dmoe serve`, made from its arguments and passed to its worker processes."""

import os
from dataclasses import asdict, dataclass
from typing import Literal

from dmoe.json_text import format_json, parse_json

VARIABLE = "DMOE_SERVE"


@dataclass(frozen=True)
class ServeOptions:
    """Options of the server.

    Attributes:
        model: folder of a scorer, or a pointer file whose first line names one; empty if there is a split.
        name: name of the model in the protocol.
        batch_rows: largest number of rows in a batch.
        batch_us: microseconds that the first request of a batch waits for others.
        queue_rows: largest number of waiting rows; further requests get 503.
        deadline_ms: deadline of a request after its arrival; later it gets 504.
        body_mib, rows: largest body and number of rows of a request; larger ones get 413.
        read_seconds: longest time until the body of a request has arrived; later it gets 408.
        follow_seconds: interval between checks of the pointer file.
        token: token that requests must send as `Authorization: Bearer`; empty for none.
        threads: threads for matrix products in each process.
        split: file with the split of an A/B test; empty for none.
        engine: engine of the scorers, see Scorer.
        scratch: folder that the worker processes share, see Scratch.
    """

    model: str
    name: str = "dmoe"
    batch_rows: int = 512
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
    scratch: str = ""

    def to_environment(self) -> None:
        """Stores the options for worker processes, which inherit the environment. On a command line, other users could read the token."""
        os.environ[VARIABLE] = format_json(asdict(self))


def from_environment() -> ServeOptions:
    return ServeOptions(**parse_json(os.environ[VARIABLE].encode()))
