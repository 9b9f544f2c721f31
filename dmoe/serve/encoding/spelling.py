"""Tables of raw rows in memory. Floats and booleans in columns of tokens become the texts that the training log has for them."""

import re
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
WHOLE = -1
PART = re.compile(rb"(?:\\.|[^|\\])+", re.DOTALL)
"""A part of a cross's token: `|` stands between them, and is written `\\|` in a part."""
BOOLEANS = {"jsonl": ["true"], "parquet": ["1", "true", "True", "TRUE"], "text": ["True", "true", "TRUE", "1"]}
"""Texts of True, the likeliest in a log of a format first. In a parquet log's lists, it is that of JSON lines."""
FALSE = {"1": "0", "true": "false", "True": "False", "TRUE": "FALSE"}


class Spelling:
    """Writes floats and booleans as tokens: in the text that the vocabularies have, else in the text that is the likeliest in such a log.

    That is `1.0` and `true` in JSON lines, where a token is the text in the line; `1` for both in a parquet log; `1` and `True` in other
    text. A fraction is written as Python or as Arrow writes it, which is as JavaScript does.

    Args:
        schema: of the training data.
        ids: name of a feature -> its ids.

    Attributes:
        columns: columns of which every feature reads texts -> the names of these features, and of crosses with the place of the column.
    """

    def __init__(self, schema: Schema, ids: Mapping[str, Ids]) -> None:
        self.format = schema.format if schema.format in BOOLEANS else "text"
        self._ids, self._parts = ids, dict[tuple[str, int], TokenIds]()
        self.columns: dict[str, list[tuple[str, int]]] = {}
        others = {schema.time.column} if schema.time else set()
        for feature in schema.categorical:
            for place, one in enumerate(schema.parts_of(feature)):
                column = one.column or one.name
                if not (one.bucket or one.part):
                    self.columns.setdefault(column, []).append((feature.name, place if feature.cross else WHOLE))
                    others |= {column} if one.type != "string" else set()
        for column in others & self.columns.keys():
            del self.columns[column]

    def table(self, rows: pa.Table) -> pa.Table:
        """The rows with texts in place of the floats and booleans in columns of tokens; each column of `rows` is one chunk at most."""
        for name in self.columns:
            place = rows.schema.get_field_index(name)
            if place >= 0 and _is_spelled(rows.schema.types[place]):
                rows = rows.set_column(place, name, self._texts(name, rows.column(place).combine_chunks()))
        return rows

    def written(self, name: str, values: Sequence[float | bool], listed: bool) -> list[str]:
        """The texts of floats, or of booleans.

        Args:
            listed: whether they stand in lists.
        """
        texts: list[str] = self._distinct(name, pa.array(values), listed).to_pylist() if len(values) else []
        return texts

    def _texts(self, name: str, column: pa.Array) -> pa.Array:
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if pa.types.is_nested(column.type):
            rows = column.to_pylist()
            flat = pa.array([one for row in rows for one in row or ()], column.type.value_type)
            texts = iter(self._texts_of_values(name, flat, True).to_pylist())
            return pa.array([row if row is None else [next(texts) for _ in row] for row in rows], pa.list_(pa.large_string()))
        return self._texts_of_values(name, column, False)

    def _texts_of_values(self, name: str, values: pa.Array, listed: bool) -> pa.Array:
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        distinct = values.dictionary_encode()
        return self._distinct(name, distinct.dictionary, listed).take(distinct.indices)

    def _distinct(self, name: str, values: pa.Array, listed: bool) -> pa.Array:
        forms, likeliest = self._forms(values, listed)
        texts: list[str | None] = [None] * len(values)
        for feature, place in self.columns[name]:
            known = self._known(feature, place)
            if known is None:
                continue
            for form in forms:
                for number, id in enumerate(known.of_text(form.cast(pa.large_binary())).tolist()):
                    if id > RARE_ID and texts[number] is None:
                        texts[number] = form[number].as_py()
            # Otherwise by its number, in the text of the token that has it: a cross is made of that.
            for number, id in enumerate(known.look_up(likeliest.cast(pa.large_binary())).tolist()):
                if id > RARE_ID and texts[number] is None:
                    texts[number] = known.token(id).decode()
        return pa.array([likeliest[number].as_py() if text is None else text for number, text in enumerate(texts)], pa.large_string())

    def _forms(self, values: pa.Array, listed: bool) -> tuple[list[pa.Array], pa.Array]:
        """(the texts of distinct values in the order in which vocabularies are asked, those of a log whose vocabulary does not tell)."""
        if pa.types.is_boolean(values.type):
            given, order = values.to_pylist(), BOOLEANS["jsonl" if listed and self.format == "parquet" else self.format]
            texts = [pa.array([text if one else FALSE[text] for one in given], pa.large_string()) for text in order]
            return texts, texts[0]
        if pa.types.is_float16(values.type):
            values = values.cast(pa.float32())
        short = values.cast(pa.large_string())
        if pa.types.is_float64(values.type):
            long = pa.array([repr(one) for one in values.to_pylist()], pa.large_string())
        else:
            long = pc.replace_substring_regex(short, r"^(-?[0-9]+)$", r"\1.0")
        if self.format == "parquet":
            return [short, long], short
        # Of text, a float is more often an integer beside a missing value, as pandas reads it, than a token such as 1.0.
        return [long, short], long if self.format == "jsonl" else short

    def _known(self, feature: str, place: int) -> TokenIds | None:
        """The tokens of a feature, or of a part of a cross; None if its ids are hashed."""
        table = self._ids.get(feature)
        if not isinstance(table, TokenIds) or place == WHOLE:
            return table if isinstance(table, TokenIds) else None
        if (feature, place) not in self._parts:
            # The text of a number or a boolean has no | that would be escaped.
            split = (PART.findall(table.token(id)) for id in range(RARE_ID + 1, RARE_ID + len(table.offsets)))
            self._parts[feature, place] = TokenIds(
                pa.array(sorted({parts[place] for parts in split if len(parts) > place}), pa.large_binary())
            )
        return self._parts[feature, place]


def _is_spelled(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_floating(kind) or pa.types.is_boolean(kind))


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
    if isinstance(value, np.float32 | np.float16):
        # Its shortest text, as in a column of Arrow: 0.7, not 0.699999988079071.
        value = float(str(value))
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
    listed = any(isinstance(one, list) for one in values)
    numbers = [{one for one in _flat(values) if type(one) is kind} for kind in (float, bool)]
    # Not one dictionary: 1.0 and True are the same key.
    of_kind = [dict(zip(some, spelling.written(name, list(some), listed), strict=True)) if spelling else {} for some in numbers]
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
