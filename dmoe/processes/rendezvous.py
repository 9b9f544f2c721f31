"""A store that holds nothing of an earlier attempt.

torchrun's agent keeps one TCPStore for all restarts of a job and its workers write to it under the same keys each time (torch 2.13:
`_create_c10d_store` expects a new store for every retry, `DynamicRendezvousHandler` shares one). So a restarted rank may read where a
rank of the attempt before was listening, and fail with "Connection refused". `TORCHELASTIC_RESTART_COUNT` is no way out: it counts
failures of a node, which differ between the nodes of a job.
"""

import json
import os
import secrets
import time
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from dmoe.errors import UserError
from dmoe.json_text import format_json

POLL_SECONDS = 0.02
ROUND = "dmoe/round"


def join(timeout: timedelta) -> tuple[dist.Store, int, int]:
    """The store, this rank and the number of ranks, from the launcher's variables.

    Raises:
        UserError: some rank did not join in time; named.
    """
    store, rank, ranks = next(dist.rendezvous("env://", timeout=timeout))
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or ranks == 1:
        return store, rank, ranks
    return dist.PrefixStore(agree(store, rank, ranks, timeout.total_seconds()), store), rank, ranks


def agree(store: Any, rank: int, ranks: int, seconds: float) -> str:
    """A name that the ranks of this attempt share and that no attempt had before.

    Rank 0 draws it and publishes it together with the others' greetings; a rank takes it when it finds its own greeting there, which no
    earlier attempt can have known, and confirms it under the new name.
    """
    until = time.monotonic() + seconds
    return _lead(store, ranks, until) if rank == 0 else _follow(store, rank, until)


def _lead(store: Any, ranks: int, until: float) -> str:
    name = f"dmoe/{secrets.token_hex(8)}"
    told: dict[str, str] = {}
    missing = list(range(1, ranks))
    while missing:
        missing = [rank for rank in missing if not store.check([f"{name}/joined/{rank}"])]
        for rank in missing:
            if store.check([f"dmoe/hello/{rank}"]):
                greeting = store.get(f"dmoe/hello/{rank}").decode()
                if told.get(str(rank)) != greeting:
                    told[str(rank)] = greeting
                    store.set(ROUND, format_json([name, told]))
        if missing:
            if time.monotonic() > until:
                raise UserError(f"rank {missing[0]} did not join ({len(missing)} of {ranks} ranks missing); look at its host and its log")
            time.sleep(POLL_SECONDS)
    return name


def _follow(store: Any, rank: int, until: float) -> str:
    greeting = secrets.token_hex(8)
    store.set(f"dmoe/hello/{rank}", greeting)
    while True:
        if store.check([ROUND]):
            name, told = json.loads(store.get(ROUND))
            if told.get(str(rank)) == greeting:
                store.set(f"{name}/joined/{rank}", "1")
                return str(name)
        if time.monotonic() > until:
            raise UserError(f"rank {rank}: rank 0 did not join; look at its host and its log")
        time.sleep(POLL_SECONDS)
