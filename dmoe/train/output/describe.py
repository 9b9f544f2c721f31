"""The description of a run that is printed before it starts."""

import torch

from dmoe import distributed
from dmoe.config.config import Config
from dmoe.config.sections import DataConfig
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
    return (
        f"{config.variant}: {len(blueprint.experts)} experts ({names}) on {len(blueprint.set_dims)} table set(s), "
        f"{len(blueprint.features)} categorical and {len(blueprint.dense)} numeric features\n"
        f"{numbers:,} embedding parameters in {len(blueprint.tables)} tables ({', '.join(kinds)}), {dense:,} dense parameters;"
        f" {ranks} rank(s) on {session.device.type}\n{line}{decoded_twice(config.data, ranks)}"
        f"{converted(config.train.precision, session.device)}{without_auc(config.data, session.manifest)}"
        f"{of_the_data(config, session.manifest)}"
    )


def decoded_twice(data: DataConfig, ranks: int) -> str:
    """A line, with a leading line break, if several ranks decode the same row groups; else an empty text."""
    in_order = data.shuffle == "none"
    if (1 if in_order else data.window_row_groups) >= ranks:
        return ""
    now = "data.shuffle=none" if in_order else f"data.window_row_groups={data.window_row_groups}"
    better = f"{'data.shuffle=window ' * in_order}data.window_row_groups={ranks}"
    return f"\n{now}: several of the {ranks} ranks decode the same row groups; {better} avoids that"


def without_auc(data: DataConfig, manifest: Manifest) -> str:
    """A line, with a leading line break, for each split to evaluate whose rows all have the same label."""
    found = ""
    for split, then in ((data.validation_split, "; the best checkpoint is the one with the lowest logloss"), (data.test_split, "")):
        if label := manifest.splits[split].only_label:
            found += f"\nsplit '{split}': all {manifest.splits[split].rows:,} rows are {label}, so that it has no AUC{then}"
    return found


def of_the_data(config: Config, manifest: Manifest) -> str:
    """Lines, each with a leading line break, about training data that may harm: uninformative features that the model reads, and fewer rows
    than a batch."""
    inputs = model_inputs(config.data, manifest)
    read = {one.name for one in inputs.dense} | {one.name for one in inputs.categorical}
    lines, split, batch = feature_notices(manifest, read), config.data.train_split, config.train.batch_size
    rows = manifest.splits[split].rows
    if rows < batch:
        lines.append(f"split '{split}' has {rows:,} rows, fewer than train.batch_size {batch:,}: an epoch is one step")
    return "".join(f"\n{one}" for one in lines)


def converted(precision: str, device: torch.device) -> str:
    """A line, with a leading line break, if this CPU has no bf16 instructions, so that every product is converted; else an empty text."""
    if precision != "bf16" or device.type != "cpu" or any(torch.cpu.get_capabilities().get(name) for name in BF16_INSTRUCTIONS):
        return ""
    return "\ntrain.precision=bf16: this CPU has no bf16 instructions, so bf16 is several times slower here than fp32"
