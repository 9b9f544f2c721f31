"""A contender in a process of its own: builds, says that it is ready, then runs as many steps as it is told, line by line."""

import argparse
import importlib
import json
import os
import resource
import sys
import time
from typing import Any


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("builder")
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--store", default="")
    # What libraries print must not be read as an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    began = time.perf_counter()

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
    from dmoe.train.quiet import quiet

    quiet()
    step = importlib.import_module(f"tools.bench.builders.{arguments.builder}").build(case, arguments.rank)
    empty = peak_mib()
    step()

    def say(answer: dict[str, Any]) -> None:
        print(json.dumps(answer | {"peak_mib": peak_mib()}), file=answers, flush=True)

    say({"seconds_to_ready": time.perf_counter() - began, "built_mib": empty})
    for line in sys.stdin:
        seconds, cpu_seconds = [], []
        for _ in range(int(line)):
            start, cpu = time.perf_counter(), time.process_time()
            step()
            seconds.append(time.perf_counter() - start)
            cpu_seconds.append(time.process_time() - cpu)
        say({"seconds": seconds, "cpu_seconds": cpu_seconds})


if __name__ == "__main__":
    main()
    # Interpreter exit with gloo's and the reader's threads can hang; nothing is left to be written.
    os._exit(0)
