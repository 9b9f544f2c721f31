"""The description of a run that is printed before it starts."""

from collections.abc import Iterator

import torch

from dmoe import distributed
from dmoe.config.config import Config
from dmoe.data.dataset.compatibility import model_inputs
from dmoe.data.dataset.manifest import Manifest
from dmoe.data.dataset.notices import feature_notices
from dmoe.model.budget.cost import Cost, in_one_line
from dmoe.train.session import Session

BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")
"""Names in torch.cpu.get_capabilities(); the last one is for ARM."""


def describe(session: Session, cost: Cost) -> str:
    """Model, sizes, plan and cost of the run, with advice on settings that cost more than necessary."""
    config, blueprint = session.config, session.blueprint
    dense = sum(parameter.numel() for parameter in session.dense.parameters())
    numbers = sum(table.rows * sum(section.dim for section in table.sections) for table in blueprint.tables)
    kinds = sorted({row["sharding_type"] for row in session.plan["tables"].values()})
    names = ", ".join(kind for kind, _ in blueprint.experts)
    ranks, checkpoint = distributed.world_size(), config.train.checkpoint
    line = in_one_line(
        cost,
        config.train.batch_size,
        ranks,
        copy_limit=checkpoint.copy_gib * 2**30 if checkpoint.asynchronous else 0.0,
    )
    about = [
        f"{config.variant}: {len(blueprint.experts)} experts ({names}) on {len(blueprint.set_dims)} table set(s), "
        f"{len(blueprint.features)} categorical and {len(blueprint.dense)} numeric features",
        f"{numbers:,} embedding parameters in {len(blueprint.tables)} tables ({', '.join(kinds)}), {dense:,} dense parameters;"
        f" {ranks} rank(s) on {session.device.type}",
        line,
    ]
    return "\n".join([*about, *notices(config, session.manifest, ranks, session.device)])


def notices(config: Config, manifest: Manifest, ranks: int, device: torch.device) -> Iterator[str]:
    """A line for each setting that costs more than necessary, and for each thing about the data that may harm."""
    data, train = config.data, config.train
    in_order = data.shuffle == "none"
    if (1 if in_order else data.window_row_groups) < ranks:
        now = "data.shuffle=none" if in_order else f"data.window_row_groups={data.window_row_groups}"
        better = f"{'data.shuffle=window ' * in_order}data.window_row_groups={ranks}"
        yield f"{now}: several of the {ranks} ranks decode the same row groups; {better} avoids that"
    if train.precision == "bf16" and device.type == "cpu" and not any(torch.cpu.get_capabilities().get(name) for name in BF16_INSTRUCTIONS):
        yield "train.precision=bf16: this CPU has no bf16 instructions, so bf16 is several times slower here than fp32"
    for split, then in ((data.validation_split, "; the best checkpoint is the one with the lowest logloss"), (data.test_split, "")):
        if label := manifest.splits[split].only_label:
            yield f"split '{split}': all {manifest.splits[split].rows:,} rows are {label}, so that it has no AUC{then}"
    inputs = model_inputs(data, manifest)
    yield from feature_notices(manifest, {one.name for one in inputs.dense} | {one.name for one in inputs.categorical})
    if (rows := manifest.splits[data.train_split].rows) < train.batch_size:
        yield f"split '{data.train_split}' has {rows:,} rows, fewer than train.batch_size {train.batch_size:,}: an epoch is one step"
