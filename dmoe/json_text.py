"""JSON that says one thing: `json.loads` takes the last of two equal keys without a word, and NaN and Infinity, which are no JSON."""

import json
import math
from collections.abc import Sequence
from typing import Any, NoReturn


def parse_json(text: str | bytes) -> Any:
    """What a JSON text says.

    Raises:
        ValueError: not JSON, a key that stands twice in an object, a number that is not finite; says which.
        RecursionError: nested without end.
    """
    return json.loads(text, object_pairs_hook=_once, parse_float=_finite, parse_constant=_refuse)


def is_int(found: Any, expected: int) -> bool:
    """Whether a value in a file is that whole number. In Python `True` and `1.0` equal 1; in a file they are something else."""
    return type(found) is int and found == expected


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"key '{twice[:80]}' stands twice in one object")
    return made


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is too large a number")
    return number


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON's")
