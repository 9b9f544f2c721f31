"""Reads the label of each row, 0 or 1.

Shapes: N rows of a block.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from dmoe.data.prepare.encode.checked_rows import Block, CheckedRows, codes_of
from dmoe.data.prepare.rejects import shown
from dmoe.data.prepare.schema import Schema

LABELS = {b"0": 0, b"1": 1, b"0.0": 0, b"1.0": 1}
LABELS_SEEN, LABEL_CHARACTERS = 100, 64
"""For each block, how many values of the label column are counted, and how many characters of each are kept."""
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?")
BOOLEANS = {"true": "1", "false": "0"}


def labels_of(block: Block, schema: Schema, rows: CheckedRows) -> NDArray[np.uint8]:
    """The labels [N], 0 or 1. Rows without a label are malformed."""
    name, positive = schema.label.column, schema.label.positive
    coded = block.tokens(name)
    tokens = coded.dictionary.to_pylist()
    if positive is None:
        expected, of_token = "0 or 1", [LABELS.get(token.encode(), 2) for token in tokens]
    else:
        boolean = name in block.booleans
        other, is_other = _other_kind(positive, boolean)
        expected, same = f"{shown(positive)} or another value" + f" that is no {other}" * bool(other), _equal_to(positive, boolean)
        of_token = [2 if is_other(token) else int(same(token)) for token in tokens]
    label_N = np.array([*of_token, 2], np.uint8)[codes_of(coded)]
    rows.refuse(label_N > 1, "label", name, expected)
    return np.where(label_N > 1, np.uint8(0), label_N)


def _equal_to(positive: str, boolean: bool) -> Callable[[str], bool]:
    """A function that tells whether a value equals `positive`: as numbers if both are numbers, as booleans, or as texts.

    Args:
        boolean: the column is boolean, and its values are "1" and "0".
    """
    if boolean and positive.lower() in BOOLEANS:
        return lambda token: token == BOOLEANS[positive.lower()]
    if positive.lower() in BOOLEANS:
        return lambda token: token.lower() == positive.lower()
    if NUMBER.fullmatch(positive):
        number = Decimal(positive)
        return lambda token: NUMBER.fullmatch(token) is not None and Decimal(token) == number
    return lambda token: token == positive


def _other_kind(positive: str, boolean: bool) -> tuple[str, Callable[[str], bool]]:
    """The kind of value that cannot be compared with `positive`, and a function that tells it: numbers beside a boolean, and the reverse.

    Another file of the log may write its labels in another way. Its values would all differ from `positive`, and count as 0.
    """
    if positive.lower() in BOOLEANS:
        return "number", lambda token: not boolean and NUMBER.fullmatch(token) is not None
    if NUMBER.fullmatch(positive):
        return "boolean", lambda token: token.lower() in BOOLEANS
    return "", lambda token: False


def values_of_label(block: Block, schema: Schema, ok_N: NDArray[np.bool_]) -> Counter[str]:
    """The most frequent values of the label column in well-formed rows, as the file writes them; empty if the schema has no `positive`."""
    found: Counter[str] = Counter()
    if schema.label.positive is None:
        return found
    coded = block.tokens(schema.label.column)
    counts = np.bincount(codes_of(coded)[ok_N], minlength=len(coded.dictionary))
    counted = [(token, count) for token, count in zip(coded.dictionary.to_pylist(), counts.tolist(), strict=False) if count]
    written = {"1": "true", "0": "false"} if schema.label.column in block.booleans else {}
    for token, count in sorted(counted, key=lambda one: (-one[1], one[0]))[:LABELS_SEEN]:
        found[written.get(token, token)[:LABEL_CHARACTERS]] += count
    return found


def written_otherwise(files: Mapping[int, tuple[int, Counter[str]]]) -> dict[int, Counter[str]]:
    """The label values of the files that seem to write their labels in another way than the rest of the log, such as `true` in place of
    `yes`: files without a positive row that share no value with the files that have one.

    Args:
        files: number of a file -> (positive rows, counts of its values).
    """
    usual = {value for positives, values in files.values() if positives for value in values}
    return {one: values for one, (positives, values) in files.items() if usual and values and not positives and not usual & values.keys()}
