"""What the benchmarks train on: one model's sizes, its config and manifest, and batches made from nothing.

Shapes: B rows of a rank, F categorical and I dense features.
"""

import argparse
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from dmoe.config.config import Config
    from dmoe.data.dataset.batch import Batch
    from dmoe.data.dataset.manifest import Manifest
    from dmoe.train.session import Session

EXPERTS: list[Any] = ["crossnet", {"kind": "cin", "layer_maps": [16, 16]}, {"kind": "mlp", "hidden": [400, 400]}]
EXPERT_DIM, DENSE_FEATURES, LEARNING_RATE = 64, 13, 0.05
MODELS: dict[str, dict[str, Any]] = {
    # configs/criteo_dmoe.yaml, and one full-rank cross network before a deep one.
    "dmoe": {"experts": EXPERTS, "tower": {"hidden": [64]}, "embedding": {"sets": "per_expert"}},
    "dcnv2": {"experts": ["crossnet"], "tower": {"hidden": [400, 400]}, "embedding": {"sets": "shared"}},
}


@dataclass(frozen=True)
class Case:
    """One point of a benchmark. `batch` is the global one; `threads` are those of a rank; `experts` of 0 are the model's own."""

    model: str = "dmoe"
    rows: int = 100_000
    features: int = 26
    dim: int = 16
    batch: int = 4096
    ranks: int = 1
    threads: int = 2
    experts: int = 0

    @property
    def sets(self) -> int:
        return len(self.expert_specs()) if self.model == "dmoe" else 1

    @property
    def weight_bytes(self) -> int:
        return self.rows * self.features * self.sets * self.dim * 4

    def expert_specs(self) -> list[Any]:
        own = MODELS[self.model]["experts"]
        return [own[index % len(own)] for index in range(self.experts)] if self.experts else own

    def arguments(self) -> list[str]:
        """As the flags that `case_of` reads."""
        return [f"--{name}={value}" for name, value in asdict(self).items()]

    @property
    def label(self) -> str:
        return " ".join(f"{name}={value}" for name, value in asdict(self).items() if name != "experts" or value)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    for field in fields(Case):
        parser.add_argument(f"--{field.name}", type=type(field.default), default=field.default)


def case_of(arguments: argparse.Namespace) -> Case:
    return Case(**{field.name: getattr(arguments, field.name) for field in fields(Case)})


def config_of(case: Case, *overrides: str) -> "Config":
    import yaml

    from dmoe.config.config import parse_config

    model = MODELS[case.model]
    tree = {
        "model": model | {"experts": case.expert_specs(), "expert_dim": EXPERT_DIM, "embedding": model["embedding"] | {"dim": case.dim}},
        "correlation": {"alpha": 0.01 if case.model == "dmoe" else 0.0},
        "optimizer": {"tables": {"kind": "adagrad", "lr": LEARNING_RATE}},
        "train": {"batch_size": case.batch},
    }
    return parse_config(yaml.safe_dump(tree), "benchmark", list(overrides))


def manifest_of(case: Case) -> "Manifest":
    from dmoe.data.dataset.manifest import CategoricalFeature, DenseFeature, Manifest, Shard, Split

    shard = Shard(path="train/none.parquet", rows=case.batch, positives=case.batch // 4, sha256="0" * 64)
    return Manifest(
        dataset="benchmark",
        dense=tuple(DenseFeature(name=f"I{i + 1}", transform="none", missing_share=0.0) for i in range(DENSE_FEATURES)),
        categorical=tuple(
            CategoricalFeature(name=f"C{i + 1}", kind="token", cardinality=case.rows, missing_share=0.0, rare_share=0.0)
            for i in range(case.features)
        ),
        splits={"train": Split(rows=case.batch, positives=case.batch // 4, shards=(shard,))},
    )


def opened(case: Case, *overrides: str) -> "tuple[Session, Iterator[Batch]]":
    """A session in this process, which is all ranks there are, and batches for its pipeline."""
    import torch

    from dmoe import distributed
    from dmoe.train.output.log_filters import quiet
    from dmoe.train.session import open_session

    torch.set_num_threads(case.threads)
    device = distributed.start()
    quiet()
    session = open_session(config_of(case, *overrides), manifest_of(case), device)
    session.sharded.train()
    return session, forever(make_batches(case, 0))


def make_batches(case: Case, rank: int, count: int = 4) -> "list[Batch]":
    """A rank's share of `count` global batches. Ids are skewed as in click logs: the most frequent thousandth of them has a tenth of the
    rows, and they are spread over the table, so that no cache is luckier than it would be."""
    import numpy as np
    import torch
    from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

    from dmoe.data.dataset.batch import Batch

    made = []
    for index in range(count):
        rng = np.random.default_rng([7, index, rank])
        size = case.batch // case.ranks
        skewed = (rng.random((case.features, size)) ** 3 * case.rows).astype(np.int64)
        ids = skewed * 7_919 % case.rows
        dense = rng.normal(size=(size, DENSE_FEATURES)).astype(np.float32)
        label = (rng.random(size) < 0.25).astype(np.float32)
        sparse = KeyedJaggedTensor(
            keys=[f"C{i + 1}" for i in range(case.features)],
            values=torch.from_numpy(ids.reshape(-1)),
            lengths=torch.ones(case.features * size, dtype=torch.int32),
            stride=size,
        )
        made.append(Batch(torch.from_numpy(dense), sparse, torch.from_numpy(label), torch.ones(size)))
    return made


def forever(batches: "list[Batch]") -> "Iterator[Batch]":
    """The batches over and over, each time as new as a reader's: a KeyedJaggedTensor keeps what it once computed."""
    from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

    from dmoe.data.dataset.batch import Batch

    while True:
        for batch in batches:
            ids = batch.sparse
            fresh = KeyedJaggedTensor(keys=ids.keys(), values=ids.values(), lengths=ids.lengths(), stride=ids.stride())
            yield Batch(batch.dense_BD, fresh, batch.label_B, batch.weight_B)


def ids_of(batch: "Batch", features: int) -> "torch.Tensor":
    """[B, F] ids, for libraries that want them by row."""
    return batch.sparse.values().view(features, -1).t().contiguous()
