"""Scores rows with an exported model, in one process, without TorchRec.

Shapes: B rows, F categorical features, I numeric features, S table sets, K dims of a set, C columns of all sets.
"""

import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from dmoe.checkpoint.tensors import TensorFile
from dmoe.data.dataset.files import file_sha256
from dmoe.data.dataset.reading.bags import Bags
from dmoe.errors import UserError
from dmoe.finite import all_finite, require_finite
from dmoe.model.assemble import assemble, check_memory, outline
from dmoe.serve.encoding.raw_inputs import open_encoder
from dmoe.serve.encoding.row_encoder import RowEncoder
from dmoe.serve.export.format import DENSE, FILE, TABLES, ScorerFile, read_scorer_file
from dmoe.serve.onnx_engine import PIECE, OnnxEngine, choose_engine
from dmoe.serve.rows import FullRows, open_rows
from dmoe.storage.paths import PATHS, inside, join


class Scorer:
    """Scores rows with an exported model.

    With fp32 rows, logits equal those of the evaluation within 1e-5: only the order of additions differs. fp16 and int8 rows change
    embeddings by at most 2^-11 and 1/254 of the largest number in a row; for pq rows there is no bound. `dmoe export --check` measures the
    effect on scores.

    Args:
        folder: a folder that dmoe export wrote.
        verify: whether to verify the checksums of the files.
        engine: computes the logits: `torch`, the reference, or `onnx`, which is as exact and faster (docs/serve.md). The default is onnx if
            the scorer was exported with --format onnx and onnxruntime is installed, else torch.

    Raises:
        UserError: the folder holds no scorer, or a damaged one, or the engine is not available.

    Attributes:
        about: content of scorer.json.
        engine: the engine in use.

    Examples:
        >>> import dmoe
        >>> from dmoe.testing.small_scorer import small_scorer
        >>> scorer = dmoe.Scorer(small_scorer())
        >>> rows = [{"site": "s1", "user": "u3", "price": 2.5}, {"site": "new", "price": None}]
        >>> [0 < score < 1 for score in scorer.predict(rows).tolist()]
        [True, True]
    """

    def __init__(self, folder: str, verify: bool = True, engine: Literal["torch", "onnx"] | None = None) -> None:
        self.about: ScorerFile = read_scorer_file(folder)
        about = self.about
        self.folder = folder
        for name, digest in about.files.items():
            path = inside(folder, name)
            if not PATHS.exists(path):
                raise UserError(f"{path}: missing, but {FILE} names it; copy the scorer again, or export it again")
            if verify and file_sha256(path) != digest:
                raise UserError(f"{path}: damaged: its checksum is not the one in {FILE}; export it again")
        self.cardinality_F = np.array([feature.cardinality for feature in about.features])
        self._unsigned_F = self.cardinality_F.astype(np.uint64)
        self.rows = open_rows(TensorFile(join(folder, TABLES)), about)
        self._bag_places = {one.name: index for index, one in enumerate(about.features) if one.pooling != "none"}
        parts: dict[str, Any] = {
            "settings": about.model,
            "fields": len(about.features),
            "dense": len(about.dense),
            "experts": [(expert.kind, expert.options) for expert in about.experts],
            "set_dims": about.set_dims,
            "set_of_expert": [expert.table_set for expert in about.experts],
            "bf16": about.bf16,
        }
        kept = TensorFile(join(folder, DENSE))
        try:
            expected = outline(**parts)
            check_memory(expected)
        except UserError as error:
            raise UserError(f"{join(folder, FILE)}: {error}; export it again") from None
        state = expected.state_dict()
        if set(state) != set(kept.entries) or any(tuple(state[name].shape) != kept.entries[name].shape for name in state):
            raise UserError(f"{join(folder, DENSE)}: its parameters are not this model's; export it again")
        with torch.random.fork_rng(devices=[]):
            self.mixture = assemble(**parts).eval()
        self.mixture.load_state_dict({name: torch.from_numpy(np.array(kept.rows(name))) for name in state})
        self.engine = choose_engine(about, engine)
        self._memory = threading.local()
        self._onnx = OnnxEngine(folder, about, torch.get_num_threads()) if self.engine == "onnx" else None

    @cached_property
    def encoder(self) -> RowEncoder:
        """The encoder that makes ids and numbers of raw rows.

        Raises:
            UserError: the scorer was exported without the vocabularies of its training data.
        """
        return open_encoder(self.folder, self.about)

    def predict(self, rows: pa.Table | Sequence[Mapping[str, Any]]) -> np.ndarray:
        """The click probability of each raw row, [B] float32. Tokens without an id count as rare, absent values as missing.

        Args:
            rows: an Arrow table, or one dict for each row, with the columns of the training log (`encoder.columns`), without label and
                weight.

        Raises:
            UserError: a column is missing, preprocessing would refuse a value, or the scorer takes only ids.
        """
        found = self.encoder.encode(rows)
        return torch.from_numpy(self.logits(found.dense_BI, found.ids_BF, found.bags)).sigmoid().numpy()

    def logits(self, dense_BI: np.ndarray, ids_BF: np.ndarray, bags: Mapping[str, Bags] | None = None, first_row: int = 0) -> np.ndarray:
        """The logit of each row, [B] float32, all finite.

        Args:
            dense_BI: float32, the numeric features in the order of `about.dense`.
            ids_BF: integers, the categorical features in the order of `about.features`; the columns of multi-valued features are ignored.
            bags: the ids of every multi-valued feature.
            first_row: number of the first row, for messages.

        Raises:
            UserError: the model has no row for an id, or a number or a logit is not finite; names feature and row.
        """
        ids_BF = np.ascontiguousarray(ids_BF, np.int64)
        self._check(ids_BF, first_row)
        if not all_finite(dense_BI):
            for index, name in enumerate(self.about.dense):
                require_finite(dense_BI[:, index], name, first_row)
        dense_BI = np.ascontiguousarray(dense_BI, np.float32)
        for name, index in self._bag_places.items():
            if bags is None or name not in bags:
                raise UserError(f"{name}: the model takes several ids a row, give them in `bags`")
            self._check_bag(index, bags[name], first_row)
        if not len(ids_BF):
            return np.zeros(0, np.float32)
        if self._onnx:
            parts, out = [], self._buffer()
            for low in range(0, len(ids_BF), PIECE):
                piece = slice(low, low + PIECE)
                x_BFC = self._side_by_side(ids_BF[piece], {name: bags[name][piece] for name in self._bag_places} if bags else {}, out)
                parts.append(self._onnx.logits(dense_BI[piece], x_BFC))
            logit_B = parts[0] if len(parts) == 1 else np.concatenate(parts)
        else:
            logit_B = self._torch_logits(dense_BI, ids_BF, bags or {})
        if not all_finite(logit_B):
            self._refuse(logit_B, dense_BI, first_row)
        return logit_B

    def _buffer(self) -> np.ndarray:
        """The thread's memory for the embeddings of a piece, [PIECE, F, C] float32. New memory would cost the kernel's zeros each time."""
        found: np.ndarray | None = getattr(self._memory, "found", None)
        if found is None:
            found = np.empty((PIECE, len(self.about.features), sum(self.about.set_dims)), np.float32)
            self._memory.found = found
        return found

    def _side_by_side(self, ids_BF: np.ndarray, bags: Mapping[str, Bags], out: np.ndarray) -> np.ndarray:
        """The embeddings as input of `dense.onnx`, [B, F, C] float32; they may be written into `out`."""
        x_BFC = self.rows.side_by_side(ids_BF, out) if isinstance(self.rows, FullRows) else None
        if x_BFC is None:
            x_BFC = torch.cat(self._sets(ids_BF, slice(None)), -1).numpy()
        for name, bag in bags.items():
            index = self._bag_places[name]
            pooled = self._pooled(index, bag, self.about.features[index].pooling == "mean")
            x_BFC[:, index] = torch.cat(pooled, -1).numpy()
        return x_BFC

    @torch.inference_mode()
    def _torch_logits(self, dense_BI: np.ndarray, ids_BF: np.ndarray, bags: Mapping[str, Bags]) -> np.ndarray:
        found: np.ndarray = self.mixture.logits(torch.from_numpy(dense_BI), self.embeddings(ids_BF, bags)).numpy()
        return found

    def embeddings(self, ids_BF: np.ndarray, bags: Mapping[str, Bags]) -> list[Tensor]:
        """The embeddings of each table set, [B, F, K] float32. Ids must be in range."""
        sets_BFK = self._sets(ids_BF, slice(None))
        for name, index in self._bag_places.items():
            pooled = self._pooled(index, bags[name], self.about.features[index].pooling == "mean")
            for x_BFK, x_BK in zip(sets_BFK, pooled, strict=True):
                x_BFK[:, index] = x_BK
        return sets_BFK

    def _refuse(self, logit_B: np.ndarray, dense_BI: np.ndarray, first_row: int) -> None:
        """Raises UserError: names the first row whose logit is not finite, and its largest numeric feature."""
        row, advice = int(np.flatnonzero(~np.isfinite(logit_B))[0]), "are the model's weights sound?"
        if self.about.dense:
            largest = int(np.abs(dense_BI[row]).argmax())
            advice = f"its largest number is {self.about.dense[largest]}, {dense_BI[row, largest]:.4g}: is it one that training had?"
        require_finite(logit_B, "the model's logit", first_row, advice)

    def scores(self, dense_BI: np.ndarray, ids_BF: np.ndarray) -> np.ndarray:
        """The click probability of each row, [B] float32."""
        return torch.from_numpy(self.logits(dense_BI, ids_BF)).sigmoid().numpy()

    def _sets(self, ids: np.ndarray, feature: int | slice) -> list[Tensor]:
        """Looks up ids of one feature, [V], or of all features, [B, F]; returns the embeddings for each set."""
        return self.rows(torch.from_numpy(ids.astype(np.int64)), feature)

    def _check_bag(self, index: int, bags: Bags, first_row: int) -> None:
        wrong = (bags.values < 0) | (bags.values >= self.cardinality_F[index])
        if wrong.any():
            place = int(np.flatnonzero(wrong)[0])
            row, feature = first_row + int(np.searchsorted(bags.offsets, place, side="right")) - 1, self.about.features[index]
            raise UserError(f"{feature.name}: id {bags.values[place]} at row {row:,}, the model has {feature.cardinality:,} ids")

    def _pooled(self, index: int, bags: Bags, mean: bool) -> list[Tensor]:
        """The pooled embedding of a multi-valued feature in each row, [B, K] for each table set."""
        lengths_B = torch.from_numpy(bags.lengths)
        sets = self._sets(bags.values, index)
        of_V = torch.repeat_interleave(lengths_B)
        summed = [x_VK.new_zeros(len(bags), x_VK.shape[1]).index_add_(0, of_V, x_VK) for x_VK in sets]
        return [x_BK / lengths_B.clamp(min=1)[:, None] for x_BK in summed] if mean else summed

    def _check(self, ids_BF: np.ndarray, first_row: int) -> None:
        # As uint64, a negative id is very large, so one comparison is enough.
        wrong_BF = ids_BF.view(np.uint64) >= self._unsigned_F
        if wrong_BF.any():
            row, column = (int(x[0]) for x in np.nonzero(wrong_BF))
            feature = self.about.features[column]
            raise UserError(
                f"{feature.name}: id {ids_BF[row, column]} at row {first_row + row:,}, the model has {feature.cardinality:,} ids"
            )
