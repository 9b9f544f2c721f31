"""Ids and numbers of features whose value depends on one text: compiled look-ups in the vocabularies, for all columns of a batch in one
call, without the GIL.

Shapes: B rows, N spans, I numeric features, F categorical features, P features that are looked up, J columns of whole numbers.
"""

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from dmoe.data.dataset.manifest import MISSING_ID, RARE_ID
from dmoe.data.prepare.parse.parquet_block import are_bare
from dmoe.data.prepare.parse.typed_kernels import eight_hex_digits
from dmoe.data.prepare.schema import Categorical, Dense
from dmoe.data.prepare.split.split_rules import GOLDEN
from dmoe.data.prepare.tokens.buckets import Buckets, tokens_of
from dmoe.data.prepare.tokens.byte_words import first_bytes, hash_span, mixed, same_bytes
from dmoe.data.prepare.tokens.coded_column import INTEGER_LIMIT
from dmoe.data.prepare.tokens.kernels import log1p_of, slot_of
from dmoe.data.prepare.tokens.token_columns import whole_transformed
from dmoe.data.prepare.tokens.token_ids import HashedIds, Ids, IntegerIds, TokenIds, text_hash
from dmoe.serve.encoding.joined_tables import join_numbers, join_texts
from dmoe.serve.encoding.quick_rows import NotSimple
from dmoe.serve.encoding.spans import Spans

TEXT, HEX, INT = 0, 1, 2
KINDS = {"string": TEXT, "hex": HEX, "int": INT}
DIGITS = 18
"""Longer numbers are left to the pipeline. So many digits always fit into int64."""
ZEROS = np.uint64(0x3030303030303030)
COLUMN, PLACE, KIND, HASHED, LOW, MASK, TOKEN, EDGE = range(8)
"""The columns of a plan: column of the rows, place among the categorical features, kind, size of hashed ids or 0, first slot, slots - 1,
first token and first offset in the joined tables."""


@njit(nogil=True, cache=True)
def _whole(text: NDArray[np.uint8], at: int, end: int) -> tuple[int, bool]:
    """Parses an optional minus sign and digits: (the number, whether it is one)."""
    negative = text[at] == ord("-")
    at += negative
    if at == end or end - at > DIGITS:
        return 0, False
    number = 0
    for place in range(at, end):
        digit = int(text[place]) - ord("0")
        if digit < 0 or digit > 9:
            return 0, False
        number = 10 * number + digit
    return -number if negative else number, True


@njit(nogil=True, cache=True)
def _hex(text: NDArray[np.uint8], at: int, end: int) -> tuple[int, bool]:
    """Parses 1 to 8 hex digits: (the number, whether it is one)."""
    size = end - at
    if size > 8:
        return 0, False
    word = first_bytes(text, at, size)
    if size < 8:
        # Zeros in front.
        word = (word << np.uint64(64 - 8 * size)) | (ZEROS >> np.uint64(8 * size))
    number = eight_hex_digits(word)
    return number, number >= 0


@njit(nogil=True, cache=True)
def _is_missing(text: NDArray[np.uint8], at: int, size: int, missing: NDArray[np.uint8], edges: NDArray[np.int64]) -> bool:
    for one in range(len(edges) - 1):
        if edges[one + 1] - edges[one] == size and same_bytes(missing, edges[one], text, at, size):
            return True
    return size == 0


@njit(nogil=True, cache=True)
def _number_id(keys: Any, ids: NDArray[np.int32], low: int, mask: int, number: int) -> int:
    slot = slot_of(number) & mask
    while ids[low + slot] != 0:
        if keys[low + slot] == number:
            return int(ids[low + slot])
        slot = (slot + 1) & mask
    return RARE_ID


@njit(nogil=True, cache=True)
def _hashed_id(hashed: np.uint64, size: int) -> int:
    return RARE_ID + 1 + int(hashed % np.uint64(size - RARE_ID - 1))


@njit(nogil=True, cache=True)
def _text_id(
    text: NDArray[np.uint8],
    at: int,
    size: int,
    plan: NDArray[np.int64],
    slots: NDArray[np.int32],
    hashes: NDArray[np.uint64],
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
) -> int:
    h = hash_span(text, at, size)
    slot = np.int64(h & np.uint64(plan[MASK]))
    while slots[plan[LOW] + slot] != 0:
        token = slots[plan[LOW] + slot] - 1
        there = offsets[plan[EDGE] + token]
        same_size = offsets[plan[EDGE] + token + 1] - there == size
        if hashes[plan[TOKEN] + token] == h and same_size and same_bytes(data, there, text, at, size):
            return RARE_ID + 1 + token
        slot = (slot + 1) & plan[MASK]
    return RARE_ID


@njit(nogil=True, cache=True)
def _look_up(
    text: NDArray[np.uint8],
    first_N: NDArray[np.int64],
    end_N: NDArray[np.int64],
    column_C: NDArray[np.int64],
    step_C: NDArray[np.int64],
    missing: NDArray[np.uint8],
    edges: NDArray[np.int64],
    plan_P8: NDArray[np.int64],
    hexes: tuple[NDArray[np.uint32], NDArray[np.int32]],
    wholes: tuple[NDArray[np.int64], NDArray[np.int32]],
    texts: tuple[NDArray[np.int32], NDArray[np.uint64], NDArray[np.uint8], NDArray[np.int64]],
    out_BF: NDArray[np.int32],
) -> bool:
    """Sets out_BF to the ids of the features in the plan. Returns whether all values were well-formed."""
    slots, hashes, data, offsets = texts
    hex_keys, hex_ids = hexes
    whole_keys, whole_ids = wholes
    # Feature by feature: the table of a feature stays in the cache of a core.
    for one in range(len(plan_P8)):
        plan = plan_P8[one]
        kind, hashed, first, step = plan[KIND], plan[HASHED], column_C[plan[COLUMN]], step_C[plan[COLUMN]]
        place, low, mask = plan[PLACE], plan[LOW], plan[MASK]
        for row in range(len(out_BF)):
            at, end = first_N[first + row * step], end_N[first + row * step]
            found = np.int64(MISSING_ID)
            if _is_missing(text, at, end - at, missing, edges):
                pass
            elif kind == TEXT and hashed:
                found = _hashed_id(text_hash(text, at, end), hashed)
            elif kind == TEXT:
                found = np.int64(_text_id(text, at, end - at, plan, slots, hashes, data, offsets))
            else:
                number, good = _hex(text, at, end) if kind == HEX else _whole(text, at, end)
                if not good:
                    return False
                if hashed:
                    # As `hashes` of token_ids: an integer of 32 bits is reduced to them.
                    bits = number & 0xFFFFFFFF if number == np.int32(number) else number
                    found = _hashed_id(mixed(np.uint64(bits) + GOLDEN), hashed)
                elif kind == HEX:
                    found = np.int64(_number_id(hex_keys, hex_ids, low, mask, number))
                else:
                    found = np.int64(_number_id(whole_keys, whole_ids, low, mask, number))
            out_BF[row, place] = found
    return True


@njit(nogil=True, cache=True)
def _parse(
    text: NDArray[np.uint8],
    first_N: NDArray[np.int64],
    end_N: NDArray[np.int64],
    column_J: NDArray[np.int64],
    step_J: NDArray[np.int64],
    integers: tuple[NDArray[np.int64], NDArray[np.bool_]],
    missing: NDArray[np.uint8],
    edges: NDArray[np.int64],
    value_JB: NDArray[np.int32],
    given_JB: NDArray[np.bool_],
) -> bool:
    """Sets the numbers of 32 bits, 0 if missing, and whether there is one. Returns whether all values were well-formed."""
    integer_KB, given_KB = integers
    for one in range(len(column_J)):
        first, step = column_J[one], step_J[one]
        for row in range(value_JB.shape[1]):
            if first < 0:
                given, number, good = given_KB[-1 - first, row], integer_KB[-1 - first, row], True
            else:
                at, end = first_N[first + row * step], end_N[first + row * step]
                given = not _is_missing(text, at, end - at, missing, edges)
                number, good = _whole(text, at, end) if given else (0, True)
            # The absolute value of the smallest integer of 64 bits would be negative.
            if not good or number > INTEGER_LIMIT or number < -INTEGER_LIMIT:
                return False
            given_JB[one, row], value_JB[one, row] = given, number
    return True


@njit(nogil=True, cache=True)
def _ids_of_numbers(
    number_PB: NDArray[np.int64],
    given_PB: NDArray[np.bool_],
    plan_P8: NDArray[np.int64],
    wholes: tuple[NDArray[np.int64], NDArray[np.int32]],
    out_BF: NDArray[np.int32],
) -> None:
    for one in range(len(plan_P8)):
        plan = plan_P8[one]
        for row in range(len(out_BF)):
            found = np.int64(MISSING_ID)
            if given_PB[one, row]:
                found = np.int64(_number_id(wholes[0], wholes[1], plan[LOW], plan[MASK], number_PB[one, row]))
            out_BF[row, plan[PLACE]] = found


@njit(nogil=True, cache=True)
def _write_log1p(
    value_JB: NDArray[np.int32],
    given_JB: NDArray[np.bool_],
    places: NDArray[np.int64],
    numbers: NDArray[np.int64],
    out: NDArray[np.float32],
) -> None:
    for one in range(len(places)):
        for row in range(len(out)):
            out[row, places[one]] = log1p_of(value_JB[numbers[one], row]) if given_JB[numbers[one], row] else np.float32(0)


class TextCells:
    """Encodes the features of texts and whole numbers: tokens, whole-number features, and buckets of whole numbers.

    Args:
        missing: texts that mean "no value", beside the empty one.
        dense: place -> numeric feature.
        tokens: place -> categorical feature with one token a row.
        buckets: place -> bucket feature.
        ids: the vocabularies of these features. They become views of joined tables.
        edges: the buckets of these features.
        moments: name of a numeric feature -> mean and deviation, if its transform needs them.

    Attributes:
        columns: the columns to read.
        numeric: those of them that may hold integers instead of texts.
    """

    def __init__(
        self,
        missing: list[str],
        dense: Mapping[int, Dense],
        tokens: Mapping[int, Categorical],
        buckets: Mapping[int, Categorical],
        ids: Mapping[str, Ids],
        edges: Mapping[str, Buckets],
        moments: Mapping[str, tuple[float, float]],
    ) -> None:
        texts = [text.encode() for text in missing if text]
        self._missing = np.frombuffer(b"".join(texts), np.uint8), np.cumsum([0, *map(len, texts)])
        features: list[Categorical | Dense] = [*tokens.values(), *dense.values(), *buckets.values()]
        self.columns = list(dict.fromkeys(one.column or one.name for one in features))
        column_of = {one.name: self.columns.index(one.column or one.name) for one in features}
        numeric = list(dict.fromkeys(column_of[one.name] for one in features[len(tokens) :]))
        self._numeric_J = np.array(numeric, np.int64)
        of_texts_too = {one.column or one.name for one in tokens.values()}
        # A text that means "no value" may be a number: then numbers are compared as texts, too.
        self.numeric = frozenset(self.columns[place] for place in numeric if are_bare(missing)) - of_texts_too
        wholes = [one.name for one in (*tokens.values(), *buckets.values()) if one.type == "int" and isinstance(ids[one.name], IntegerIds)]
        hexes = [one.name for one in tokens.values() if one.type == "hex" and isinstance(ids[one.name], IntegerIds)]
        spelt = [one.name for one in tokens.values() if isinstance(ids[one.name], TokenIds)]
        of_hexes = join_numbers([cast(IntegerIds, ids[name]) for name in hexes], np.uint32)
        of_wholes = join_numbers([cast(IntegerIds, ids[name]) for name in wholes], np.int64)
        of_texts = join_texts([cast(TokenIds, ids[name]) for name in spelt])
        self._tables = of_hexes[:2], of_wholes[:2], of_texts[:4]
        place_of = {one.name: (place, one) for place, one in (*tokens.items(), *buckets.items())}

        def plan(name: str) -> list[int]:
            place, one = place_of[name]
            found, table = [column_of[name], place, KINDS[one.type], 0, 0, 0, 0, 0], ids[name]
            if isinstance(table, HashedIds):
                found[HASHED] = table.size
            elif isinstance(table, IntegerIds):
                low = of_hexes.low[hexes.index(name)] if name in hexes else of_wholes.low[wholes.index(name)]
                found[LOW], found[MASK] = low, len(table.keys) - 1
            elif isinstance(table, TokenIds):
                number = spelt.index(name)
                found[LOW], found[MASK] = of_texts.low[number], len(table.slots) - 1
                found[TOKEN], found[EDGE] = of_texts.token[number], of_texts.token[number] + number
            return found

        self._tokens_P8 = np.array([plan(one.name) for one in tokens.values()], np.int64).reshape(-1, 8)
        self._by_number = {
            place: (one.column or one.name, table)
            for place, one in tokens.items()
            if isinstance(table := ids[one.name], TokenIds) and len(table.numbers.numbers)
        }
        # Features of one bucket formula are computed together.
        found = [(place, numeric.index(column_of[one.name])) for place, one in dense.items() if one.transform == "log1p"]
        self._log1p = np.array(found, np.int64).reshape(-1, 2).T.copy()
        self._dense = [(place, one, numeric.index(column_of[one.name])) for place, one in dense.items() if one.transform != "log1p"]
        self._moments = moments
        self._buckets: list[_OfBuckets] = []
        formulas: dict[Any, list[Categorical]] = {}
        for one in buckets.values():
            assert one.bucket
            formulas.setdefault((one.bucket.formula or one.name, one.name in wholes or one.name), []).append(one)
        for some in formulas.values():
            plan_P8 = np.array([plan(one.name) for one in some]) if some[0].name in wholes else None
            places = [(place_of[one.name][0], numeric.index(column_of[one.name])) for one in some]
            self._buckets.append(_OfBuckets(edges[some[0].name], places, plan_P8, some[0].type, ids[some[0].name]))

    def encode(self, spans: Spans, dense_BI: NDArray[np.float32], ids_BF: NDArray[np.int32]) -> None:
        """Writes these features' columns of dense_BI and ids_BF.

        Raises:
            NotSimple: a value is malformed, or too long.
        """
        given = spans.text, spans.first_N, spans.end_N
        if not _look_up(*given, spans.column_C, spans.step_C, *self._missing, self._tokens_P8, *self._tables, ids_BF):
            raise NotSimple
        for place, (name, table) in self._by_number.items():
            rows = np.flatnonzero(ids_BF[:, place] == RARE_ID)
            if len(rows):
                column = self.columns.index(name)
                n = spans.column_C[column] + rows * spans.step_C[column]
                texts = [spans.text[low:high].tobytes() for low, high in zip(spans.first_N[n], spans.end_N[n], strict=True)]
                ids_BF[rows, place] = table.look_up(pa.array(texts, pa.large_binary()))
        if not len(self._numeric_J):
            return
        value_JB = np.empty((len(self._numeric_J), len(ids_BF)), np.int32)
        given_JB = np.empty(value_JB.shape, np.bool_)
        integers = spans.integer_KB, spans.given_KB
        if not _parse(*given, spans.column_C[self._numeric_J], spans.step_C[self._numeric_J], integers, *self._missing, value_JB, given_JB):
            raise NotSimple
        _write_log1p(value_JB, given_JB, *self._log1p, dense_BI)
        for place, feature, number in self._dense:
            made_B = whole_transformed(value_JB[number], feature.transform, self._moments.get(feature.name))
            dense_BI[:, place] = np.where(given_JB[number], made_B, np.float32(0))
        for some in self._buckets:
            some.encode(value_JB, given_JB, self._tables[1], ids_BF)


class _OfBuckets:
    """Bucket features with the same buckets.

    Args:
        found: (place among the categorical features, place among the numeric columns) of each.
        plan_P8: for `_ids_of_numbers`; None if there is only one feature, whose `ids` are not in the joined tables.
    """

    def __init__(self, buckets: Buckets, found: list[tuple[int, int]], plan_P8: NDArray[np.int64] | None, kind: str, ids: Ids) -> None:
        self.buckets, self.plan_P8, self.kind, self.ids = buckets, plan_P8, kind, ids
        self.place, self.numbers = found[0][0], [number for _, number in found]

    def encode(self, value_JB: NDArray[np.int32], given_JB: NDArray[np.bool_], wholes: Any, ids_BF: NDArray[np.int32]) -> None:
        given_PB = given_JB[self.numbers]
        number_PB = self.buckets.of_whole(value_JB[self.numbers].reshape(-1)).reshape(given_PB.shape)
        if self.plan_P8 is not None:
            _ids_of_numbers(number_PB, given_PB, self.plan_P8, wholes, ids_BF)
        else:
            distinct, place_B = np.unique(number_PB[0], return_inverse=True)
            id_B = self.ids.look_up(tokens_of(distinct, self.kind))[place_B]
            ids_BF[:, self.place] = np.where(given_PB[0], id_B, MISSING_ID)
