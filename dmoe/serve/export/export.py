"""Exports a checkpoint of a run as a scorer, a chunk of rows at a time. It reads the checkpoint files directly, without torch.

Shapes: N rows of a feature's tables, C columns of all its sets, S table sets.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, product
from math import prod
from typing import Any, NamedTuple

import numpy as np

from dmoe.checkpoint.contents import Contents
from dmoe.checkpoint.index import DENSE as KEPT_DENSE
from dmoe.checkpoint.index import EMA, Index, verify_checkpoint
from dmoe.checkpoint.of_run import best_step, folder_of
from dmoe.checkpoint.tensors import NAMES, TensorFile, read_entries, write_tensors
from dmoe.config.config import Config, load_config
from dmoe.data.dataset.compatibility import Inputs
from dmoe.data.dataset.manifest import Manifest, load_manifest
from dmoe.data.skew import shares_of
from dmoe.errors import UserError
from dmoe.finite import require_finite
from dmoe.model.embedding.product_quantization import BLOCK, CENTROIDS
from dmoe.model.expert_specs import expert_specs
from dmoe.names import show
from dmoe.serve.encoding.raw_inputs import write_inputs
from dmoe.serve.export.card import Card, make_card, run_figures
from dmoe.serve.export.format import (
    DENSE,
    DTYPES,
    TABLES,
    ScoredExpert,
    ScoredFeature,
    ScorerFile,
    codebook_of,
    scale_of,
    write_scorer_file,
)
from dmoe.serve.export.quantize import as_half, encoded, learn_codebooks, quantised, row_weights
from dmoe.storage.paths import PATHS, inside, join, write_atomic
from dmoe.train.run.run_inputs import run_inputs

CHUNK_ROWS = 65536
EPS, NORM = 1e-5, "norm."
"""Repeated from `dmoe.model.batch_norm.NormalizedExperts`, because importing that needs torch."""
ADVICE = "the model overflowed; export an earlier step"


class _Part(NamedTuple):
    """A matrix of the scorer's tables.

    Attributes:
        features: (name, number of rows), one feature below the other.
        sets: table sets, side by side in a row.
        dims: of each set.
    """

    name: str
    features: list[tuple[str, int]]
    sets: list[Any]
    dims: list[int]


def export(run: str, output: str, rows: str = "fp32", step: int | None = None) -> ScorerFile:
    """Exports the best checkpoint of a run, or that of a step.

    Args:
        rows: number format of the table rows: fp32, fp16, int8 (one scale for each row and table set), or pq (one byte for four numbers;
            frequent ids weigh more when codebooks are learned).
        step: the checkpoint to export; the best one by default.

    Raises:
        UserError: the run or checkpoint is missing or damaged, or a weight is not finite or too large for fp16.
    """
    path = inside(run, "config.yaml")
    if not PATHS.exists(path):
        raise UserError(f"{run}: no run there (no config.yaml)")
    config, manifest, inputs = load_config(path), load_manifest(run), run_inputs(run)
    folder = folder_of(run, best_step(run) if step is None else step)

    def card_of(index: Index) -> Card:
        return make_card(run, config, manifest, index, dense_parameters(folder), run_figures(run) if step is None else {})

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
    """Exports a checkpoint as a scorer. With `online.ema`, the dense weights are their moving averages.

    Args:
        folder: folder of the checkpoint.
        manifest: manifest of the data set that defines the ids of the table rows.
        inputs: the features of this data set that the model reads.
        data: folder with the vocabularies of this data set.
        card_of: makes the model card from the index of the checkpoint.
        spare: the tables may have more rows than there are ids; the additional rows are not exported.

    Returns:
        the content of scorer.json; and the reason why the scorer takes only ids, empty if it also reads raw rows.

    Raises:
        UserError: the checkpoint is damaged or of another model, or a weight is not finite or too large for fp16.
    """
    index = verify_checkpoint(folder)
    specs, parts, shares = expert_specs(config.model), _parts(config, inputs, index, spare), shares_of(manifest)
    card = card_of(index) if card_of else None
    PATHS.mkdirs(output)
    model = config.model
    # A hashed row is shared by several ids, other ones for each expert, so all hashed rows get the same weight.
    counted = rows == "pq" and model.embedding.sets != "hashed"
    weights = row_weights(data, manifest, [feature.name for feature in inputs.categorical]) if counted else {}
    dense = _write_dense(folder, output, len(model.experts), config.online.ema > 0)
    files = {TABLES: _write_tables(folder, parts, output, rows, weights), DENSE: dense}
    raw, missing = write_inputs(manifest, data, output)
    content = ScorerFile(
        variant=config.variant,
        rows=rows,  # type: ignore[arg-type]
        step=index.progress["step"],
        schema_hash=manifest.schema_hash,
        features=[ScoredFeature(name=one.name, cardinality=one.cardinality, pooling=one.pooling) for one in inputs.categorical],
        dense=[feature.name for feature in inputs.dense],
        experts=[
            ScoredExpert(kind=kind, options=options, table_set=table_set)
            for (kind, options), table_set in zip(specs.experts, specs.set_of_expert, strict=True)
        ],
        set_dims=list(specs.set_dims),
        # Batch norm is folded into the layers before it.
        model=model.model_copy(update={"expert_norm": "none"}) if model.expert_norm == "batch" else model,
        bf16=config.train.precision == "bf16",
        shares={name: shares[name] for name in (*(one.name for one in inputs.categorical), *(one.name for one in inputs.dense))},
        files=files | raw,
        reads=inputs,
        card=card,
    )
    write_scorer_file(output, content)
    return content, missing


def _parts(config: Config, inputs: Inputs, index: Index, spare: bool) -> list[_Part]:
    """The matrices of the tables, by the config. Checks that the checkpoint's tables have these shapes."""
    dims, embedding = list(expert_specs(config.model).set_dims), config.model.embedding
    features = [(feature.name, feature.cardinality) for feature in inputs.categorical]
    every = list(range(len(dims)))
    if embedding.sets == "light":
        private = [(name, min(count, embedding.private_ids)) for name, count in features]
        parts = [_Part("rows", features, ["shared"], dims[:1]), _Part("private", private, every, dims)]
    elif embedding.sets == "hashed":
        parts = [_Part("rows", [(name, min(count, embedding.hashed_rows)) for name, count in features], ["shared"], dims[:1])]
    else:
        parts = [_Part("rows", features, every, dims)]
    for part in parts:
        for (name, count), (table_set, dim) in product(part.features, zip(part.sets, part.dims, strict=True)):
            found = index.tables.get(f"{name}/{table_set}")
            if found is None or found[1] != dim or (found[0] < count if spare else found[0] != count):
                raise UserError(f"table '{name}/{table_set}' is {found} in the checkpoint, the run's config says {(count, dim)}")
    return parts


def _write_tables(folder: str, parts: list[_Part], output: str, rows: str, weights: Mapping[str, np.ndarray]) -> str:
    kept = Contents(folder)
    entries: list[tuple[str, str, tuple[int, ...]]] = []
    data: list[Iterator[np.ndarray]] = []
    for part in parts:
        total, chunks = sum(count for _, count in part.features), _chunks(kept, part)
        if rows == "pq":
            books = learn_codebooks(part.features, part.dims, lambda part=part: _chunks(kept, part), weights)  # type: ignore[misc]
            blocks = books.shape[1]
            entries.append((part.name, DTYPES[rows], (total, blocks)))
            entries.append((codebook_of(part.name), "F32", (len(books) * blocks * CENTROIDS, BLOCK)))
            data += [encoded(part.features, part.dims, chunks, books), iter([books])]
            continue
        entries.append((part.name, DTYPES[rows], (total, sum(part.dims))))
        if rows == "int8":
            entries.append((scale_of(part.name), "F32", (total, len(part.dims))))
            # In the file the scales come after all rows. They are small, so they are collected in memory.
            scales: list[np.ndarray] = []
            data.append(chain(quantised(chunks, part.dims, scales), scales))
        else:
            data.append((as_half(chunk_NC, folder) for chunk_NC in chunks) if rows == "fp16" else chunks)
    with write_atomic(join(output, TABLES)) as file:
        return write_tensors(file, entries, chain.from_iterable(data))[1]


def _chunks(kept: Contents, part: _Part) -> Iterator[np.ndarray]:
    """Yields the rows of all features in chunks of [N, C] float32, all sets side by side."""
    for name, count in part.features:
        for low in range(0, count, CHUNK_ROWS):
            high = min(low + CHUNK_ROWS, count)
            sets = [kept.rows(f"{name}/{table_set}", low, high) for table_set in part.sets]
            chunk_NC = np.concatenate(sets, 1, dtype=np.float32)
            yield require_finite(chunk_NC, f"{kept.folder}: an embedding of {name}", low, ADVICE)


def dense_parameters(folder: str) -> int:
    """The number of parameters of a checkpoint that are not in tables."""
    entries = read_entries(join(folder, KEPT_DENSE))
    return sum(prod(entry.shape) for name, entry in entries.items() if name.startswith("model/"))


def _write_dense(folder: str, output: str, experts: int, averaged: bool) -> str:
    file = TensorFile(join(folder, KEPT_DENSE))
    names = sorted(name for name in file.entries if name.startswith("model/"))
    arrays = {}
    for name in (name.removeprefix("model/") for name in names):
        mean = f"optimizer/{name}/{EMA}"
        # The running moments of batch norm are not parameters, so they have no moving average.
        kept = mean if averaged and mean in file.entries else f"model/{name}"
        arrays[name] = require_finite(file.rows(kept), f"{folder}: {kept}", advice=ADVICE)
    if f"{NORM}running_mean" in arrays:
        arrays = _without_batch_norm(arrays, experts, folder)
    entries = [(name, NAMES[array.dtype], array.shape) for name, array in arrays.items()]
    with write_atomic(join(output, DENSE)) as out:
        return write_tensors(out, entries, arrays.values())[1]


def _without_batch_norm(arrays: dict[str, np.ndarray], experts: int, folder: str) -> dict[str, np.ndarray]:
    """Folds batch norm (`NormalizedExperts`), with its running moments, weights and biases, into the linear layers before it."""
    found = {name: array for name, array in arrays.items() if not name.startswith(NORM)}
    moments = {name.removeprefix(NORM): array.astype(np.float64) for name, array in arrays.items() if name.startswith(NORM)}
    scale_P = moments["weight"] / np.sqrt(moments["running_var"] + EPS)
    shift_P = moments["bias"] - moments["running_mean"] * scale_P
    for expert, (scale_D, shift_D) in enumerate(zip(np.split(scale_P, experts), np.split(shift_P, experts), strict=True)):
        weight, bias = (f"projections.{expert}.0.{part}" for part in ("weight", "bias"))
        for name, value in ((weight, found[weight] * scale_D[:, None]), (bias, shift_D)):
            found[name] = require_finite(value.astype(np.float32), f"{folder}: {name}", advice=ADVICE)
    return found
