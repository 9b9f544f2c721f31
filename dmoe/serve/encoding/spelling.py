"""Tables of raw rows in memory. Floats and booleans in columns of tokens become the texts that the training log has for them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dmoe.data.dataset.manifest import RARE_ID
from dmoe.data.prepare.schema import Schema
from dmoe.data.prepare.tokens.token_ids import Ids, TokenIds
from dmoe.errors import UserError
from dmoe.names import quoted

WHERE = "rows"
BOOLEANS = (("0", "1"), ("false", "true"), ("False", "True"), ("FALSE", "TRUE"))
"""The texts of False and True, the first one as in a parquet log."""


class Spelling:
    """Writes floats and booleans as tokens.

    In JSON lines, a token is the text in the line: `1.0`, `true`. A parquet log's 1.0 and True are both the token `1`. A text log may have
    either text: one that is in the vocabulary is chosen, else that of a parquet log.

    Args:
        schema: of the training data.
        ids: name of a feature -> its ids.

    Attributes:
        columns: columns of which every feature reads texts -> the vocabularies of these features.
    """

    def __init__(self, schema: Schema, ids: Mapping[str, Ids]) -> None:
        self.format = schema.format
        parts = {part.name: part for one in schema.categorical for part in schema.parts_of(one)}.values()
        tokens = [one for one in parts if not (one.bucket or one.part)]
        others = {one.column or one.name for one in tokens if one.type != "string"} | {schema.time.column if schema.time else ""}
        self.columns: dict[str, list[TokenIds]] = {one.column or one.name: [] for one in tokens if (one.column or one.name) not in others}
        for one in tokens:
            if (one.column or one.name) in self.columns and isinstance(table := ids.get(one.name), TokenIds):
                self.columns[one.column or one.name].append(table)

    def table(self, rows: pa.Table) -> pa.Table:
        """The rows with texts in place of the floats and booleans in columns of tokens; each column of `rows` is one chunk at most."""
        for name in self.columns:
            place = rows.schema.get_field_index(name)
            if place >= 0 and _is_spelled(rows.schema.types[place]):
                column = rows.column(place).combine_chunks()
                rows = rows.set_column(place, name, self._texts(name, column))
        return rows

    def written(self, name: str, values: Sequence[float | bool]) -> list[str]:
        """The texts of floats, or of booleans."""
        texts: list[str] = self._texts(name, pa.array(values)).to_pylist() if len(values) else []
        return texts

    def _texts(self, name: str, column: pa.Array) -> pa.Array:
        if pa.types.is_nested(column.type):
            rows = column.to_pylist()
            flat = pa.array([one for row in rows for one in row or ()], column.type.value_type)
            texts = iter(self._texts(name, flat).to_pylist())
            return pa.array([row if row is None else [next(texts) for _ in row] for row in rows], pa.list_(pa.large_string()))
        distinct = column.dictionary_encode()
        forms = self._forms(distinct.dictionary)
        chosen = np.zeros(len(distinct.dictionary), np.int64)
        for number, form in enumerate(forms) if self.format != "parquet" else reversed(list(enumerate(forms))):
            for known in self.columns[name]:
                chosen[known.look_up(form.cast(pa.large_binary())) > RARE_ID] = number
        every = [one.to_pylist() for one in forms]
        texts = pa.array([every[number][place] for place, number in enumerate(chosen.tolist())], pa.large_string())
        return texts.take(distinct.indices)

    def _forms(self, values: pa.Array) -> list[pa.Array]:
        """The texts of distinct values, first those that a log of this format has if nothing else is known."""
        if pa.types.is_boolean(values.type):
            given = values.to_pylist()
            pairs = BOOLEANS[1:2] if self.format == "jsonl" else BOOLEANS
            return [pa.array([pair[one] for one in given], pa.large_string()) for pair in pairs]
        short = values.cast(pa.large_string())
        if pa.types.is_float64(values.type):
            long = pa.array([repr(one) for one in values.to_pylist()], pa.large_string())
        else:
            long = pc.replace_substring_regex(short, r"^(-?[0-9]+)$", r"\1.0")
        return [long] if self.format == "jsonl" else [short, long]


def _is_spelled(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    return bool(pa.types.is_float64(kind) or pa.types.is_float32(kind) or pa.types.is_boolean(kind))


def table_of(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    separators: Mapping[str, str] | None = None,
    spelling: Spelling | None = None,
) -> pa.Table:
    """Makes a table of rows in memory. Values are texts, numbers, booleans, null, NaN (as null), or lists of these; also of numpy.

    In a column with both texts and numbers, numbers become texts, as `spelling` says.

    Args:
        separators: of columns with several values in one text. If such a column also has lists, its texts are split into lists.

    Raises:
        UserError: a value has another type; names row and column.
    """
    arrays = {}
    for name in columns:
        values = [_plain(row.get(name)) for row in rows]
        spelled = spelling if spelling and name in spelling.columns else None
        try:
            # Arrow would make floats of the integers beside them.
            column = None if spelled and _has_both(values) else pa.array(values, from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError):
            column = None
        if column is None:
            texts = _texts_of(values, name, spelled)
            separator = (separators or {}).get(name)
            if separator and any(isinstance(one, list) for one in texts):
                texts = [one.split(separator) if isinstance(one, str) else one for one in texts]
            try:
                column = pa.array(texts)
            except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError):
                raise UserError(f"{WHERE}: {quoted(name)} has both lists and single values, or text that is no UTF-8") from None
        if pa.types.is_nested(column.type) and not pa.types.is_list(column.type):
            row = next(row for row, value in enumerate(values) if value is not None)
            raise UserError(f"{WHERE}: row {row:,}: {quoted(name)} is a {type(values[row]).__name__}, expected a value or a list of values")
        arrays[name] = column.cast(pa.large_string()) if pa.types.is_null(column.type) else column
    return pa.table(arrays)


def _plain(value: Any) -> Any:
    """A value of numpy as one of Python; a NaN, which means a missing value, as None."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and value != value else value


def _flat(values: Sequence[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list):
            yield from value
        else:
            yield value


def _has_both(values: Sequence[Any]) -> bool:
    """Whether there are floats and other numbers."""
    kinds = set(map(type, _flat(values)))
    return float in kinds and int in kinds


def _texts_of(values: Sequence[Any], name: str, spelling: Spelling | None) -> list[Any]:
    numbers = [{one for one in _flat(values) if type(one) is kind} for kind in (float, bool)]
    # Not one dictionary: 1.0 and True are the same key.
    of_kind = [dict(zip(some, spelling.written(name, list(some)), strict=True)) if spelling else {} for some in numbers]
    written = dict(zip((float, bool), of_kind, strict=True))

    def text(value: Any, row: int) -> Any:
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, list):
            return [text(one, row) for one in value]
        if isinstance(value, float | bool) and spelling:
            return written[type(value)][value]
        if isinstance(value, int | float):
            return repr(int(value) if isinstance(value, bool) else value)
        raise UserError(f"{WHERE}: row {row:,}: {quoted(name)} is a {type(value).__name__}, expected text, a number or a list of these")

    return [text(value, row) for row, value in enumerate(values)]
