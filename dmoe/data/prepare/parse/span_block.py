"""Base class of blocks of text and of JSON lines: values are spans of a buffer, and are converted when they are used.

Shapes: N rows, C columns that are read.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dmoe.data.prepare.encode.text_numbers import NONE, NUMBER, OTHER, numbers, to_float
from dmoe.data.prepare.tokens.dictionary_coding import coded
from dmoe.data.prepare.tokens.spans import strings
from dmoe.data.prepare.tokens.texts import texts_of


class SpanBlock:
    """Rows whose values are `text[first[column, row] : end[column, row]]`, in UTF-8. An empty value is missing."""

    def __init__(
        self, columns: Sequence[str], text: NDArray[np.uint8], first: NDArray[np.int32], end: NDArray[np.int32], missing: Sequence[str]
    ) -> None:
        """
        Args:
            first, end: [C, N].
            missing: texts that mean "no value".
        """
        self._text, self._first, self._end = text, first, end
        self._place_of = {name: place for place, name in enumerate(columns)}
        self._no_value = frozenset(missing)
        self._missing = texts_of(missing)
        self._tokens: dict[str, pa.DictionaryArray] = {}
        self._numbers: dict[str, tuple[NDArray[np.float64], NDArray[np.uint8]]] = {}

    def value(self, name: str, row: int) -> str | None:
        """The text of a value; None if it is missing."""
        first, end = self._of(name)
        text = self._text[first[row] : end[row]].tobytes().decode()
        return None if text in self._no_value else text

    def tokens(self, name: str) -> pa.DictionaryArray:
        """A column as codes, null if missing, and distinct tokens in the order of their first occurrence."""
        if name not in self._tokens:
            self._tokens[name] = coded(self._text, *self._of(name), self._missing)
        return self._tokens[name]

    def numbers(self, name: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """(values [N], 0.0 if there is none; whether each is a finite number [N])."""
        value_N, found_N = self._parsed(name)
        return value_N, found_N == NUMBER

    def missing(self, name: str) -> NDArray[np.bool_]:
        """Whether each value of a column is missing [N]."""
        return np.asarray(self._parsed(name)[1] == NONE)

    def timestamps(self, name: str) -> None:
        """None: text and JSON have no timestamp type."""

    def _parsed(self, name: str) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        """(values [N]; NONE, NUMBER, or OTHER for a text that is no finite number [N])."""
        if name not in self._numbers:
            first, end = self._of(name)
            value_N, found_N = numbers(self._text, first, end, self._missing)
            other = np.flatnonzero(found_N == OTHER)
            if len(other):
                value_N[other], given = to_float(strings(self._text, first[other], end[other]))
                found_N[other[given]] = NUMBER
            self._numbers[name] = value_N, found_N
        return self._numbers[name]

    def _of(self, name: str) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        place = self._place_of[name]
        return self._first[place], self._end[place]
