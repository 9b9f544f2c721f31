"""Scores rows with an exported model, in one process, without TorchRec.

Shapes: B rows, F categorical features, I numeric features, S table sets, K dims of a set, C columns of all sets.
"""

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dmoe.errors import UserError
from dmoe.model.assemble import assemble
from dmoe.paths import join
from dmoe.serve.format import DENSE, DTYPES, TABLES, ScorerFile, digest_of, read_scorer_file
from dmoe.train.checkpoint.tensors import TensorFile


class Scorer:
    """An exported model.

    fp32 scores equal the evaluation's but for the order of sums: within 1e-5 of the logit. fp16 and int8 rows change the embeddings by
    2^-11 and 1/254 of a row's largest number at most; what that does to scores, `tools/export.py --check` measures.

    Args:
        folder: that tools/export.py wrote.
        verify: the files' checksums.

    Raises:
        UserError: not a scorer, or a damaged one.

    Attributes:
        about: what scorer.json says.
    """

    def __init__(self, folder: str, verify: bool = True) -> None:
        self.about: ScorerFile = read_scorer_file(folder)
        about = self.about
        for name, expected in about.files.items():
            if verify and digest_of(join(folder, name)) != expected:
                raise UserError(f"{join(folder, name)}: damaged: its checksum is not the one in scorer.json; export it again")
        self.cardinality_F = np.array([feature.cardinality for feature in about.features])
        self.offset_F = np.concatenate([[0], np.cumsum(self.cardinality_F)[:-1]])
        tables = TensorFile(join(folder, TABLES))
        total = int(self.cardinality_F.sum())
        self.rows_RC = _tensor(tables, "rows", (total, sum(about.set_dims)), DTYPES[about.rows])
        self.scale_RS = _tensor(tables, "scale", (total, len(about.set_dims)), "F32") if about.rows == "int8" else None
        with torch.random.fork_rng(devices=[]):
            self.mixture = assemble(
                about.model,
                fields=len(about.features),
                dense=len(about.dense),
                experts=[(expert.kind, expert.options) for expert in about.experts],
                set_dims=about.set_dims,
                set_of_expert=[expert.table_set for expert in about.experts],
                bf16=about.bf16,
            ).eval()
        kept = TensorFile(join(folder, DENSE))
        state = self.mixture.state_dict()
        if set(state) != set(kept.entries) or any(tuple(state[name].shape) != kept.entries[name].shape for name in state):
            raise UserError(f"{join(folder, DENSE)}: its parameters are not this model's; export it again")
        self.mixture.load_state_dict({name: torch.from_numpy(np.array(kept.rows(name))) for name in state})

    @torch.inference_mode()
    def logits(self, dense_BI: np.ndarray, ids_BF: np.ndarray) -> np.ndarray:
        """The logit of each row, [B] float32.

        Args:
            dense_BI: float32, the numeric features in `about.dense`'s order.
            ids_BF: integers, the categorical features in `about.features`' order.

        Raises:
            UserError: an id that the model has no row for; names feature and row.
        """
        self._check(ids_BF)
        row_BF = torch.from_numpy(ids_BF.astype(np.int64) + self.offset_F)
        looked_up_BFC = self.rows_RC[row_BF].float()
        sets_BFK = list(looked_up_BFC.split(self.about.set_dims, 2))
        if self.scale_RS is not None:
            sets_BFK = [x * s for x, s in zip(sets_BFK, self.scale_RS[row_BF].split(1, 2), strict=True)]
        logits: Tensor = self.mixture.logits(torch.from_numpy(np.ascontiguousarray(dense_BI, np.float32)), sets_BFK)
        return logits.numpy()

    def scores(self, dense_BI: np.ndarray, ids_BF: np.ndarray) -> np.ndarray:
        """The click probability of each row, [B] float32."""
        return torch.from_numpy(self.logits(dense_BI, ids_BF)).sigmoid().numpy()

    def _check(self, ids_BF: np.ndarray) -> None:
        wrong_BF = (ids_BF < 0) | (ids_BF >= self.cardinality_F)
        if wrong_BF.any():
            row, column = (int(x[0]) for x in np.nonzero(wrong_BF))
            feature = self.about.features[column]
            raise UserError(f"{feature.name}: id {ids_BF[row, column]} at row {row:,}, the model has {feature.cardinality:,} ids")


def _tensor(file: TensorFile, name: str, shape: tuple[int, int], dtype: str) -> Tensor:
    entry: Any = file.entries.get(name)
    if entry is None or entry.shape != shape or entry.dtype != dtype:
        raise UserError(f"{file.path}: '{name}' is not {dtype} {list(shape)}; export it again")
    with warnings.catch_warnings():
        # The file stays mapped and is never written: tables larger than memory are read as they are needed.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(file.rows(name))
