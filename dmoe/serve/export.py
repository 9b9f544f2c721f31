"""From a run's checkpoint to a scorer, a chunk of rows at a time. No torch: a checkpoint's files are read as they are.

Shapes: N rows of a feature's tables, C columns of all its sets, S table sets.
"""

import sys
from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import numpy as np

from dmoe.checkpoint.index import DENSE as KEPT_DENSE
from dmoe.checkpoint.index import Index, read_index, step_of, verify_checkpoint
from dmoe.checkpoint.inspect import Contents
from dmoe.checkpoint.tensors import TensorFile, read_entries, write_tensors
from dmoe.config import Config, load_config
from dmoe.data.dataset.compatibility import Inputs
from dmoe.data.dataset.manifest import Manifest, load_manifest
from dmoe.data.skew import shares_of
from dmoe.errors import UserError
from dmoe.finite import require_finite
from dmoe.model.expert_specs import expert_specs
from dmoe.names import show
from dmoe.paths import PATHS, inside, join, write_atomic, write_text
from dmoe.serve.card import FILE as CARD
from dmoe.serve.card import Card, as_markdown, make_card
from dmoe.serve.format import DENSE, DTYPES, TABLES, ScoredExpert, ScoredFeature, ScorerFile, write_scorer_file
from dmoe.serve.raw_inputs import write_inputs
from dmoe.train.run.run_inputs import run_inputs

CHUNK_ROWS = 65536
ADVICE = "the model overflowed; export an earlier step"


def export(run: str, output: str, rows: str = "fp32", step: int | None = None) -> ScorerFile:
    """Writes a scorer of a run's best checkpoint.

    Args:
        rows: of the tables: fp32, fp16, or int8 with a scale a row and table set.
        step: another checkpoint than the best.

    Raises:
        UserError: no such run or checkpoint, a damaged one, or a weight that is not finite, or that fp16 cannot hold.
    """
    path = inside(run, "config.yaml")
    if not PATHS.exists(path):
        raise UserError(f"{run}: no run there (no config.yaml)")
    config, manifest, inputs = load_config(path), load_manifest(run), run_inputs(run)
    folder = inside(run, "checkpoints", f"step-{best_step(run) if step is None else step:09d}")

    def card_of(index: Index) -> Card:
        return make_card(run, config, manifest, index, _dense_parameters(folder), best=step is None)

    content, missing = export_checkpoint(folder, config, manifest, inputs, config.data.path, output, rows, card_of=card_of)
    if missing:
        show(f"{output}: takes ids, not raw rows: {missing}", sys.stderr)
    return content


def export_checkpoint(
    folder: str,
    config: Config,
    manifest: Manifest,
    inputs: Inputs,
    data: str,
    output: str,
    rows: str,
    spare: bool = False,
    card_of: Callable[[Index], Card] | None = None,
) -> tuple[ScorerFile, str]:
    """Writes a scorer of a checkpoint.

    Args:
        folder: of the checkpoint.
        manifest: of the data set whose ids its rows are for; `inputs` what the model reads of it, `data` the folder with its vocabularies.
        card_of: makes the model's card of the checkpoint's index.
        spare: the tables may have more rows than there are ids, which are left out.

    Returns:
        what scorer.json says, and why the scorer takes ids only, empty where it reads raw rows.

    Raises:
        UserError: a damaged checkpoint, one of another model, or a weight that is not finite, or that fp16 cannot hold.
    """
    index = verify_checkpoint(folder)
    plan, shares = _plan(config, inputs, index, spare), shares_of(manifest)
    card = card_of(index) if card_of else None
    PATHS.mkdirs(output)
    files = {TABLES: _write_tables(folder, plan, output, rows), DENSE: _write_dense(folder, output)}
    raw, missing = write_inputs(manifest, data, output)
    content = ScorerFile(
        variant=config.variant,
        rows=rows,  # type: ignore[arg-type]
        step=index.progress["step"],
        schema_hash=manifest.schema_hash,
        features=plan["scored"],
        dense=plan["dense"],
        experts=plan["experts"],
        set_dims=plan["set_dims"],
        model=config.model,
        bf16=config.train.precision == "bf16",
        shares={name: shares[name] for name in (*(feature.name for feature in plan["scored"]), *plan["dense"])},
        files=files | raw,
        reads=inputs,
        card=card,
    )
    if card:
        kinds = [one.kind for one in content.experts]
        write_text(join(output, CARD), as_markdown(card, content.variant, content.step, rows, kinds))
    write_scorer_file(output, content)
    return content, missing


def best_step(run: str) -> int:
    """The checkpoint with the best validation AUC, as the newest one tells.

    Raises:
        UserError: the run has no checkpoint.
    """
    folder = inside(run, "checkpoints")
    names = PATHS.ls(folder) if PATHS.exists(folder) else []
    steps = sorted(step for name in names if (step := step_of(name)) is not None)
    published = [step for step in steps if PATHS.exists(join(inside(folder, f"step-{step:09d}"), "index.json"))]
    if not published:
        raise UserError(f"{run}: the run has no checkpoint yet")
    best = read_index(inside(folder, f"step-{published[-1]:09d}")).progress.get("best_step")
    return best if best in published else published[-1]


def _plan(config: Config, inputs: Inputs, index: Index, spare: bool) -> dict[str, Any]:
    """What the model is, and what it reads, in its order. What the tables are is the checkpoint's to say."""
    specs = expert_specs(config.model)
    for feature in inputs.categorical:
        for table_set, dim in enumerate(specs.set_dims):
            found = index.tables.get(f"{feature.name}/{table_set}")
            if found is None or found[1] != dim or (found[0] < feature.cardinality if spare else found[0] != feature.cardinality):
                raise UserError(
                    f"table '{feature.name}/{table_set}' is {found} in the checkpoint, the run's config says {(feature.cardinality, dim)}"
                )
    return {
        "features": [(feature.name, feature.cardinality) for feature in inputs.categorical],
        "scored": [ScoredFeature(name=one.name, cardinality=one.cardinality, pooling=one.pooling) for one in inputs.categorical],
        "dense": [feature.name for feature in inputs.dense],
        "experts": [
            ScoredExpert(kind=kind, options=options, table_set=table_set)
            for (kind, options), table_set in zip(specs.experts, specs.set_of_expert, strict=True)
        ],
        "set_dims": list(specs.set_dims),
    }


def _write_tables(folder: str, plan: dict[str, Any], output: str, rows: str) -> str:
    dims, total = plan["set_dims"], sum(count for _, count in plan["features"])
    entries = [("rows", DTYPES[rows], (total, sum(dims)))]
    chunks = _chunks(Contents(folder), plan)
    if rows == "int8":
        entries.append(("scale", "F32", (total, len(dims))))
        # The file wants all rows before the scales, which are few: they wait in memory.
        scales: list[np.ndarray] = []
        data: Iterator[np.ndarray] = _then(_quantised(chunks, dims, scales), scales)
    elif rows == "fp16":
        data = (_half(chunk_NC, folder) for chunk_NC in chunks)
    else:
        data = chunks
    with write_atomic(join(output, TABLES)) as file:
        return write_tensors(file, entries, data)[1]


def _then(first: Iterator[np.ndarray], rest: list[np.ndarray]) -> Iterator[np.ndarray]:
    yield from first
    yield from rest


def _quantised(chunks: Iterator[np.ndarray], dims: list[int], scales: list[np.ndarray]) -> Iterator[np.ndarray]:
    for chunk_NC in chunks:
        quantised_NC, scale_NS = quantise(chunk_NC, dims)
        scales.append(scale_NS)
        yield quantised_NC


def quantise(rows_NC: np.ndarray, dims: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Rows as int8 in -127 .. 127 and a float32 scale a row and set: a number is off by half a scale at most, its row's largest / 254."""
    out_NC, scale_NS, start = np.empty(rows_NC.shape, np.int8), np.empty((len(rows_NC), len(dims)), np.float32), 0
    for number, dim in enumerate(dims):
        part = rows_NC[:, start : start + dim]
        scale = np.abs(part).max(1) / 127
        scale_NS[:, number] = scale
        out_NC[:, start : start + dim] = np.rint(part / np.where(scale > 0, scale, 1)[:, None])
        start += dim
    return out_NC, scale_NS


def _half(rows_NC: np.ndarray, folder: str) -> np.ndarray:
    largest = float(np.abs(rows_NC).max(initial=0))
    if largest > np.finfo(np.float16).max:
        raise UserError(f"{folder}: an embedding of {largest:.3g} does not fit fp16; export fp32 or int8")
    return rows_NC.astype(np.float16)


def _chunks(kept: Contents, plan: dict[str, Any]) -> Iterator[np.ndarray]:
    """Every feature's rows, all sets side by side, float32."""
    for name, count in plan["features"]:
        for low in range(0, count, CHUNK_ROWS):
            high = min(low + CHUNK_ROWS, count)
            sets = [kept.rows(f"{name}/{number}", low, high) for number in range(len(plan["set_dims"]))]
            chunk_NC = np.concatenate(sets, 1, dtype=np.float32)
            yield require_finite(chunk_NC, f"{kept.folder}: an embedding of {name}", low, ADVICE)


def _dense_parameters(folder: str) -> int:
    entries = read_entries(join(folder, KEPT_DENSE))
    return sum(prod(entry.shape) for name, entry in entries.items() if name.startswith("model/"))


def _write_dense(folder: str, output: str) -> str:
    kept = TensorFile(join(folder, KEPT_DENSE))
    names = sorted(name for name in kept.entries if name.startswith("model/"))
    entries = [(name.removeprefix("model/"), kept.entries[name].dtype, kept.entries[name].shape) for name in names]
    arrays = (require_finite(kept.rows(name), f"{folder}: {name}", advice=ADVICE) for name in names)
    with write_atomic(join(output, DENSE)) as file:
        return write_tensors(file, entries, arrays)[1]
