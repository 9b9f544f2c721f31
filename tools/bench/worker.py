"""A contender in a process of its own: builds when it is told to, takes a step, says so, then takes as many as each line asks for."""

import argparse
import importlib
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

RESERVED_GIB = 1.0
"""Allocators of libraries (pyarrow's, which FuxiCTR imports) reserve so much at their first use, and touch none of it."""


def written_bytes() -> int:
    """Of this process's memory, what counts towards the limit; 0 where the kernel does not tell."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData")), 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("builder")
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--store", default="")
    parser.add_argument("--memory-gib", type=float, default=0.0, help="of this process; 0 is no limit")
    # What libraries print must not be read as an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    import torch
    import torch.distributed as dist

    from tools.bench.case import add_arguments, case_of

    add_arguments(parser)
    arguments = parser.parse_args()
    case = case_of(arguments)
    torch.set_num_threads(case.threads)
    torch.manual_seed(0)
    ranks = str(case.ranks)
    os.environ.update(RANK=str(arguments.rank), LOCAL_RANK=str(arguments.rank), WORLD_SIZE=ranks, LOCAL_WORLD_SIZE=ranks)
    store = dist.FileStore(arguments.store, case.ranks) if case.ranks > 1 else dist.HashStore()
    dist.init_process_group("gloo", store=store, rank=arguments.rank, world_size=case.ranks)
    from dmoe.train.output.log_filters import quiet

    quiet()
    builder = importlib.import_module(f"tools.bench.builders.{arguments.builder}")
    if arguments.memory_gib:
        # An allocation that fails says what was wanted, where the kernel would kill whichever process it liked.
        room = int((arguments.memory_gib + RESERVED_GIB) * 2**30) + written_bytes()
        resource.setrlimit(resource.RLIMIT_DATA, (room, room))
    sys.stdin.readline()
    built = builder.build(case, arguments.rank)
    built.step()

    def say(answer: dict[str, Any]) -> None:
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(answer | {"peak_mib": peak_mib}), file=answers, flush=True)

    say({"table_parameters": built.table_parameters, "dense_parameters": built.dense_parameters})
    for line in sys.stdin:
        seconds, cpu_seconds = [], []
        for _ in range(int(line)):
            start, cpu = time.perf_counter(), time.process_time()
            built.step()
            seconds.append(time.perf_counter() - start)
            cpu_seconds.append(time.process_time() - cpu)
        say({"seconds": seconds, "cpu_seconds": cpu_seconds})


if __name__ == "__main__":
    main()
    # Interpreter exit with gloo's and the reader's threads can hang; nothing is left to be written.
    os._exit(0)
