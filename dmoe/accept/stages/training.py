"""Stages about training: table kernels, invariance to the plan, lower precision, torch.compile, and tables in host memory."""

import itertools
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dmoe.accept.conductor import Job
from dmoe.accept.finding import Notes, Skipped

WEIGHT_BOUND, LOSS_BOUND = 2e-4, 1e-5
"""Largest allowed relative differences after some steps, which come only from the order of additions."""
STEPS = 4
TYPES = ("data_parallel", "table_wise", "row_wise", "column_wise", "table_row_wise", "table_column_wise", "grid_shard")
CUT = ("column_wise", "table_column_wise", "grid_shard")
SGD = ("optimizer.dense={kind: sgd, lr: 0.1}", "model.embedding.init_std=0.3", "train.batch_size=61")
"""Overrides for comparisons: an odd batch size, so that ranks have unequal parts; and large embeddings, so that gradients are large
compared with rounding errors."""
Case = tuple[str, list[str]]


def data_folder(job: Job, name: str) -> str:
    """The folder of a small data set, which is made once: `bags` has multi-valued features, `clicks` has a signal to learn."""
    folder = Path(job.shared, name)
    if not folder.exists():
        job.ranks.run(make_bags if name == "bags" else make_clicks, str(folder), size=1)
    return str(folder)


def make_bags(folder: str) -> None:
    """Writes a data set with single-valued features, and multi-valued ones with sum and mean pooling."""
    from dmoe.model.dmoe import Feature, manifest_of
    from dmoe.train.rehearsal.random_set import write_random_set

    Path(folder).mkdir()
    features = {"C1": Feature(40), "C2": Feature(30, "sum", 2.0), "C3": Feature(25, "mean", 3.0), "C4": Feature(60)}
    write_random_set(folder, manifest_of(features, ["I1", "I2"]), {"train": 61 * STEPS, "validation": 64, "test": 64})


def make_clicks(folder: str) -> None:
    """Writes a data set with a signal, and a config beside it."""
    from dmoe.config.config import dump_config
    from dmoe.testing.small_data import make_data_set
    from dmoe.testing.small_run import small_config

    make_data_set(Path(folder))
    Path(folder, "config.yaml").write_text(dump_config(small_config(folder)))


def kernels(job: Job, notes: Notes) -> None:
    """The stage `kernels`: compares every sharding type and table optimizer of the device with float64 on the CPU."""
    compare_all(job, notes, kernel_cases(job.on_gpu, job.full, job.ranks.size))


def kernel_cases(on_gpu: bool, full: bool, ranks: int) -> list[Case]:
    """(name, overrides of the config) of each case. On one rank, only two sharding types use different kernels."""
    kinds = ["adagrad", "rowwise_adagrad", "sgd", *["adam"] * on_gpu]
    types = TYPES if ranks > 1 else ("data_parallel", "table_wise")
    cases = []
    for kind in kinds:
        for name in types:
            every = full or kind == "adagrad" or name in ("data_parallel", "table_wise", "row_wise")
            if every and not (kind == "rowwise_adagrad" and name in CUT):
                layout = "separate" if kind == "rowwise_adagrad" else "wide"
                chosen = [f"optimizer.tables.kind={kind}", f"sharding.types=[{name}]", f"model.embedding.layout={layout}"]
                cases.append((f"{name} with {kind}", chosen))
    return cases


def compare_all(job: Job, notes: Notes, cases: Iterable[Case]) -> None:
    folder, found = data_folder(job, "bags"), {}
    expected: dict[str, Any] = {}
    for name, chosen in cases:
        # The reference does not depend on the plan, so one for each optimizer is enough.
        kind = next((one for one in chosen if one.startswith("optimizer.tables.kind")), "")
        if kind not in expected:
            (expected[kind],) = job.ranks.run(reference, folder, [kind] * bool(kind), size=1)
        found[name] = apart(job.ranks.run(train, folder, chosen)[0], expected[kind])
    _record(notes, "kernels", found)


def _record(notes: Notes, kinds: str, found: Mapping[str, tuple[float, float]]) -> None:
    """Records the differences of losses and of weights, from `apart`."""
    notes.figure(kinds, len(found))
    notes.differences("losses", {name: loss for name, (loss, _) in found.items()}, LOSS_BOUND)
    notes.differences("weights", {name: weights for name, (_, weights) in found.items()}, WEIGHT_BOUND)


def reference(folder: str, chosen: Sequence[str]) -> Any:
    from dmoe.accept.stages.reference import train_reference
    from dmoe.testing.small_run import small_config

    return train_reference(small_config(folder, *SGD, *chosen), STEPS)


def train(folder: str, chosen: Sequence[str]) -> Any:
    """Losses, whole tables and dense weights of a few steps on all ranks, with a validation in between that must change nothing. Returns
    None on other ranks than 0."""
    from dmoe import distributed
    from dmoe.testing.small_run import dense_weights, open_small, small_config, train_steps, whole_tables
    from dmoe.train.evaluate import evaluate

    session = open_small(small_config(folder, *SGD, *chosen))
    losses = train_steps(session, STEPS // 2)
    evaluate(session, session.reader("validation"))
    losses += train_steps(session, STEPS - STEPS // 2, start_row=STEPS // 2 * session.config.train.batch_size)
    told = losses, whole_tables(session), dense_weights(session)
    return told if distributed.rank() == 0 else None


def apart(found: Any, expected: Any) -> tuple[float, float]:
    """The largest relative differences of losses and of weights; infinite if one is NaN."""
    from dmoe.testing.small_run import largest_difference, loss_difference

    return loss_difference(found[0], expected[0]), max(largest_difference(expected[1], found[1]), largest_difference(expected[2], found[2]))


def invariance(job: Job, notes: Notes) -> None:
    """The stage `invariance`: compares several plans and layouts on all ranks with one rank."""
    from dmoe.testing.plans import overrides

    if job.ranks.size == 1:
        raise Skipped("on one rank there is one plan")
    ways = [("mixed", "wide"), ("mixed on hosts", "separate"), ("planner's choice", "wide")]
    ways += [(name, layout) for name in TYPES for layout in ("wide", "separate")] * job.full
    folder = data_folder(job, "clicks")
    (expected,) = job.ranks.run(plan_run, folder, overrides("table_wise", "wide"), size=1)
    found = {f"{plan}, {layout}": apart(job.ranks.run(plan_run, folder, overrides(plan, layout))[0], expected) for plan, layout in ways}
    _record(notes, "plans and layouts", found)


def plan_run(folder: str, chosen: Sequence[str]) -> Any:
    from dmoe import distributed
    from dmoe.testing.small_run import train_and_tell

    told = train_and_tell(folder, 10, *chosen)[:3]
    return told if distributed.rank() == 0 else None


def precision(job: Job, notes: Notes) -> None:
    """The stage `precision`: training with bf16 in the dense part, or with embeddings sent in 16 bits, must stay close to float32."""
    from dmoe.testing.small_run import loss_difference

    folder = data_folder(job, "clicks")
    plain = job.ranks.run(plan_run, folder, [])[0][0]
    halves = ["fp16", *["bf16"] * job.on_gpu] if job.ranks.size > 1 else []
    variants = {"bf16 in the dense part": ["train.precision=bf16"]}
    variants |= {f"{half} between ranks": [f"sharding.comm_precision={half}", "sharding.types=[table_wise, row_wise]"] for half in halves}
    for name, chosen in variants.items():
        losses = job.ranks.run(plan_run, folder, chosen)[0][0]
        difference = loss_difference(losses, plain)
        notes.within(f"{name}, largest difference of a loss", difference, 0.05)
        notes.hold(difference > 0, f"{name}: the losses are float32's to the bit, so that nothing was computed or sent in fewer bits")


def compiled(job: Job, notes: Notes) -> None:
    """The stage `compile`: training with torch.compile of the dense part must give the same result as without."""
    if not (job.full or job.on_gpu):
        raise Skipped("on a CPU it takes minutes: give --level full")
    folder = data_folder(job, "clicks")
    plain = job.ranks.run(plan_run, folder, [])[0]
    found = job.ranks.run(plan_run, folder, ["train.compile=true"])[0]
    loss, weights = apart(found, plain)
    notes.within("largest difference of a loss", loss, 10 * LOSS_BOUND)
    notes.within("largest difference of a weight", weights, 10 * WEIGHT_BOUND)


def host_memory(job: Job, notes: Notes) -> None:
    """The stage `host memory`: trains, saves and loads tables in host memory, with and without a cache on the device."""
    if not job.on_gpu:
        raise Skipped("tables in the host's memory beside a device's need a GPU")
    host_memory_with(job, notes, ("fused_uvm", "fused_uvm_caching"))


def host_memory_with(job: Job, notes: Notes, kernels: Sequence[str]) -> None:
    """Like `host_memory`, with the given kernels; `fused` also runs on a CPU."""
    kinds = ("adagrad", "adam") if job.on_gpu else ("adagrad",)
    of_kind = itertools.product(kernels, kinds)
    compare_all(job, notes, [(f"{kernel} with {kind}", [f"optimizer.tables.kind={kind}", _all_tables(kernel)]) for kernel, kind in of_kind])
    folder = data_folder(job, "clicks")
    with tempfile.TemporaryDirectory(dir=job.shared) as kept:
        for number, kernel in enumerate(kernels):
            chosen = [_all_tables(kernel)]
            job.ranks.run(saved, folder, f"{kept}/{number}", chosen)
            equal, losses = job.ranks.run(loaded, folder, f"{kept}/{number}", chosen)[0]
            notes.hold(
                equal, f"{kernel}: a checkpoint does not hold the weights that training had: rows of the cache were not written back"
            )
            notes.within(f"{kernel}, loss after a resume", losses, LOSS_BOUND)


def _all_tables(kernel: str) -> str:
    return f"sharding.tables={{'*': {{types: [table_wise], kernels: [{kernel}]}}}}"


def saved(folder: str, target: str, chosen: Sequence[str]) -> None:
    """Trains, saves, and trains further. Keeps the saved tables and the later losses for `loaded`."""
    from dmoe.checkpoint.save import save_checkpoint
    from dmoe.testing.resume import everything
    from dmoe.testing.small_run import open_small, small_config, train_steps

    session = open_small(small_config(folder, *chosen))
    train_steps(session, 6)
    save_checkpoint(target, session.sharded, session.tables, session.dense, session.optimizers, {"step": 6})
    _kept[target] = everything(session), train_steps(session, 4, start_row=6 * session.config.train.batch_size)


def loaded(folder: str, target: str, chosen: Sequence[str]) -> tuple[bool, float]:
    """Loads the checkpoint into another model that was trained for some steps. Returns whether all weights and states are equal, and the
    largest relative difference of the following losses."""
    import numpy as np

    from dmoe.checkpoint.load import load_checkpoint
    from dmoe.testing.resume import everything
    from dmoe.testing.small_run import loss_difference, open_small, small_config, train_steps

    session = open_small(small_config(folder, "train.seed=7", *chosen))
    train_steps(session, 3)
    session.config = small_config(folder, *chosen)
    load_checkpoint(target, session.sharded, session.tables, session.dense, session.optimizers)
    expected, losses = _kept.pop(target)
    found = everything(session)
    equal = found.keys() == expected.keys() and all(np.array_equal(found[name], expected[name]) for name in found)
    after = train_steps(session, 4, start_row=6 * session.config.train.batch_size)
    return equal, loss_difference(after, losses)


_kept: dict[str, Any] = {}
"""Results that `saved` passes to `loaded` on the same rank."""
