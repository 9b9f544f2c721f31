"""A process that trains one run after another.

Importing torch and TorchRec takes longer than training a small run, so a worker trains several runs. This is safe because a run leaves no
state in the process: it creates its own process group, and its random numbers depend only on seed, step and position
(tests/endtoend/test_report_cli.py checks that a later run of a worker is bit-identical to a run in a new process).
"""

import multiprocessing
import os
import sys
from multiprocessing.connection import Connection

from dmoe.errors import UserError
from dmoe.processes.orphans import end_with
from dmoe.storage.paths import no_follow

RUNS_A_WORKER = 20
"""After so many runs, a new process replaces the worker: torch and TorchRec do not release all memory (46 runs on Frappe: 0.85 GB)."""


class Worker:
    """Controls a worker process.

    Args:
        threads: number of threads of the process for matrix products.

    Attributes:
        connection: becomes readable when a run has ended.
    """

    def __init__(self, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.runs = 0
        self.process = context.Process(target=_work, args=(theirs, threads, os.getpid()), daemon=True)
        self.process.start()
        theirs.close()

    def send(self, config: str, run: str) -> None:
        """Starts a run: the path of a config, and the directory of the run."""
        self.runs += 1
        self.connection.send((config, run))

    def result(self) -> str | None:
        """Waits for the end of the run. Returns the reason if it failed, otherwise None."""
        try:
            problem: str | None = self.connection.recv()
        except EOFError:
            self.process.join()
            self.runs = RUNS_A_WORKER
            return f"its process ended with exit code {self.process.exitcode}"
        return problem

    @property
    def fit(self) -> bool:
        """Whether the worker may get another run."""
        return self.runs < RUNS_A_WORKER

    def close(self) -> None:
        self.connection.close()
        self.process.terminate()
        self.process.join()


def _work(connection: Connection, threads: int, parent: int) -> None:
    # Before numpy and torch are imported, which read it.
    os.environ["OMP_NUM_THREADS"] = str(threads)
    from dmoe.train.output.log_filters import quiet

    end_with(parent, 1)
    quiet()
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        os.environ.pop(name, None)
    while True:
        try:
            config, run = connection.recv()
            connection.send(_train(config, run, threads))
        except (EOFError, KeyboardInterrupt, BrokenPipeError):
            return


def _train(config: str, run: str, threads: int) -> str | None:
    """Trains one run in this process, with its output in RUN.log. Returns the reason if it failed, otherwise None."""
    os.makedirs(os.path.dirname(run), exist_ok=True)
    with open(f"{run}.log", "a", opener=no_follow) as log:
        for descriptor in (1, 2):
            os.dup2(log.fileno(), descriptor)
    import torch

    from dmoe import distributed
    from dmoe.train.command import train
    from dmoe.train.elastic import watchdog as watch

    torch.set_num_threads(threads)
    try:
        train(config, [], resume=True)
    except UserError as error:
        return str(error)
    except Exception as error:
        import traceback

        traceback.print_exc()
        return f"{type(error).__name__}: {error}"
    finally:
        watch.end()
        distributed.stop()
        sys.stderr.flush()
    return None
