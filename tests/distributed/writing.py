"""Cases of the checkpoint writer, run on every rank."""

import threading
from dataclasses import asdict
from typing import Any

import numpy as np

from dmoe import distributed
from dmoe.checkpoint import save, writer
from dmoe.checkpoint.load import load_checkpoint
from dmoe.checkpoint.progress import Progress
from dmoe.checkpoint.writer import CheckpointWriter
from dmoe.config.sections import CheckpointConfig
from dmoe.errors import UserError
from dmoe.testing.resume import BEFORE, everything
from dmoe.testing.small_run import dense_weights, open_small, small_config, train_steps
from dmoe.train.optimizer.schedule import Schedule
from dmoe.train.run.restore import restore_best, resume_from
from dmoe.train.run.run_dir import RunDir

Tensors = dict[str, np.ndarray]


def _open(data: str, folder: str, **settings: Any) -> tuple[Any, CheckpointWriter]:
    session = open_small(small_config(data))
    parts = (session.sharded, session.tables, session.dense, session.optimizers)
    return session, CheckpointWriter(folder, *parts, CheckpointConfig(**settings))


def refusal(data: str, folder: str, *overrides: str) -> str:
    session = open_small(small_config(data, *overrides))
    try:
        load_checkpoint(folder, session.sharded, session.tables, session.dense, session.optimizers)
    except UserError as error:
        return str(error)
    return "accepted"


def refused_position(data: str, folder: str, row: int) -> str:
    """What a run says that would go on from a row that its data does not have."""
    session = open_small(small_config(data))
    train, schedule = session.reader(session.config.data.train_split, shuffled=True), Schedule(session.config.optimizer.schedule, 10)
    size = session.config.train.batch_size
    progress = asdict(Progress(step=1, row=row, order=train.order, batch_size=size, schedule=schedule.state()))
    save.save_checkpoint(folder, session.sharded, session.tables, session.dense, session.optimizers, progress)
    try:
        resume_from(session, folder, train, schedule)
    except UserError as error:
        return str(error)
    return "accepted"


def save_in_background(data: str, folder: str) -> tuple[Tensors, Tensors, Tensors]:
    """Everything at the call, as loaded from what the thread wrote, and after the steps that the thread had to wait for."""
    session, keeper = _open(data, folder)
    train_steps(session, BEFORE)
    moment, trained, write_part = everything(session), threading.Event(), save.write_part

    def late(*arguments: Any) -> Any:
        assert trained.wait(60)
        return write_part(*arguments)

    writer.write_part = late
    try:
        keeper.save({"step": BEFORE, "best_step": None})
        train_steps(session, 2, start_row=BEFORE * 64)
        assert keeper.under_way
        assert not keeper.finished
        later = everything(session)
        trained.set()
        keeper.finish()
    finally:
        writer.write_part = write_part
    other = open_small(small_config(data, "train.seed=3"))
    load_checkpoint(RunDir(folder).checkpoint(BEFORE), other.sharded, other.tables, other.dense, other.optimizers)
    return moment, everything(other), later


def fail_in_background(data: str, folder: str) -> str:
    session, keeper = _open(data, folder)
    keeper.save({"step": 1, "best_step": None})
    keeper.finish()
    write_atomic = save.write_atomic

    def full(path: str) -> Any:
        raise OSError(28, "No space left on device")

    if distributed.rank() == 1:
        save.write_atomic = full  # type: ignore[assignment]
    try:
        keeper.save({"step": 2, "best_step": None})
        train_steps(session, 1)
        keeper.save({"step": 3, "best_step": None})
    except UserError as error:
        return str(error)
    finally:
        save.write_atomic = write_atomic
    return "nothing was told"


def save_nan(data: str, folder: str) -> str:
    session, keeper = _open(data, folder)
    if distributed.rank() == 1:
        from dmoe.sharding.plan.local_shards import local_shards

        local_shards(session.sharded, session.tables)[0].weight[0, 0] = float("nan")
    keeper.save({"step": 1, "best_step": None})
    try:
        keeper.finish()
    except UserError as error:
        return str(error)
    return "kept"


def threads_with_limit(data: str, folder: str, gib: float) -> int:
    _, keeper = _open(data, folder, copy_gib=gib)
    keeper.save({"step": 1, "best_step": None})
    threads = int(keeper._thread is not None)
    keeper.finish()
    return threads


def save_many(data: str, folder: str, steps: int, keep: int = 99) -> None:
    """A checkpoint after every step; step 2 is the best."""
    session, keeper = _open(data, folder, keep=keep)
    for step in range(1, steps + 1):
        train_steps(session, 1, start_row=(step - 1) * 64)
        keeper.save({"step": step, "best_step": min(step, 2)})
    keeper.finish()


def newest(folder: str) -> Any:
    try:
        return RunDir(folder).newest_sound()
    except UserError as error:
        return str(error)


def restored(data: str, folder: str) -> tuple[int, Tensors]:
    """Which step the best checkpoint, 2, was restored from, and the dense weights that came of it."""
    session = open_small(small_config(data, "train.seed=3"))
    return restore_best(session, RunDir(folder), Progress(best_step=2)), dense_weights(session)


def threads_after(data: str, folder: str) -> list[str]:
    save_many(data, folder, 2)
    return [thread.name for thread in threading.enumerate() if thread.name in ("checkpoint", "reader", "watch")]
