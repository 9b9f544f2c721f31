"""`dmoe.DMoE`: the model, built from plain Python values.

Shapes: B rows, F features, I numeric features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from dmoe.config.config import Config
from dmoe.config.strict import checked
from dmoe.data.dataset.manifest import Manifest
from dmoe.model.build import assemble_mixture, make_blueprint
from dmoe.model.embedding.embedding import MultiEmbedding
from dmoe.model.embedding.initial_weights import initialize_whole_tables
from dmoe.model.network import Network, Outputs


@dataclass(frozen=True)
class Feature:
    """A categorical feature.

    Attributes:
        cardinality: number of ids; ids are 0 .. cardinality - 1.
        pooling: `none` if each row has one id; otherwise how the embeddings of the ids of a row are pooled.
        mean_ids: mean number of ids per row, which the planner uses.
    """

    cardinality: int
    pooling: Literal["none", "sum", "mean"] = "none"
    mean_ids: float = 1.0


class DMoE(Network):
    """De-correlated mixture of experts (Wang et al. 2025, arXiv 2505.17925), unsharded: an ordinary module with complete tables.

    `dmoe.Trainer` shards a copy of it over the ranks and starts from its weights.

    Args:
        features: name -> cardinality, or a Feature; the keys of the KeyedJaggedTensor, in this order.
        dense: names of the numeric features, in the order of the dense tensor's columns.
        experts: kinds such as `crossnet`, `cin`, `mlp`, or dicts with a kind and its options.
        dim: embedding dim.
        seed: seed of the initial weights.
        model: other keys of `model` in the config, such as `gate`, `expert_dim`, `embedding`.

    Shape:
        - Input: dense [B, I] float32; ids, a KeyedJaggedTensor with one key per feature.
        - Output: Outputs; its `logit_B` [B] is the logit of a click.

    Raises:
        UserError: an unknown expert or option; the message names it.

    Examples:
        >>> model = DMoE(features={"user": 1000, "site": 50}, dense=["price"], experts=["crossnet", "mlp"], dim=8)
        >>> ids = KeyedJaggedTensor.from_lengths_sync(["user", "site"], torch.tensor([1, 2, 3, 4]), torch.ones(4, dtype=torch.int32))
        >>> model(torch.zeros(2, 1), ids).logit_B.shape
        torch.Size([2])
    """

    def __init__(
        self,
        features: Mapping[str, int | Feature],
        dense: Sequence[str] = (),
        experts: Sequence[str | dict[str, Any]] = ("crossnet", "cin", "mlp"),
        dim: int = 16,
        seed: int = 0,
        **model: Any,
    ) -> None:
        embedding = {"dim": dim, **model.pop("embedding", {})}
        tree = {"model": {"embedding": embedding, "experts": list(experts), **model}, "train": {"seed": seed}}
        self.manifest = manifest_of(features, dense)
        config = checked(Config.model_validate, tree, "DMoE")
        spec = make_blueprint(config, self.manifest)
        super().__init__(MultiEmbedding(spec.tables, torch.device("cpu")), assemble_mixture(config, spec))
        self.config, self.spec = config, spec
        initialize_whole_tables(self.embedding.ebc, spec.tables, seed, config.model.embedding.init_std)

    def forward(self, dense_BI: Tensor, ids: KeyedJaggedTensor) -> Outputs:  # type: ignore[override]
        return super().forward(dense_BI, ids if self.spec.lookups is None else self.spec.lookups(ids))[0]


def manifest_of(features: Mapping[str, int | Feature], dense: Sequence[str]) -> Manifest:
    """A manifest that describes these features and has no rows."""
    given = {name: one if isinstance(one, Feature) else Feature(one) for name, one in features.items()}
    shares = {"missing_share": 0.0, "rare_share": 0.0}
    tree = {
        "dataset": "python",
        "dense": [{"name": name, "transform": "none", "missing_share": 0.0} for name in dense],
        "categorical": [
            {"name": name, "kind": "token", "cardinality": one.cardinality, "pooling": one.pooling, "mean_ids": one.mean_ids, **shares}
            for name, one in given.items()
        ],
        "splits": {},
    }
    return checked(Manifest.model_validate, tree, "DMoE: features")
