"""JSON in one reading, read and written: no key stands twice in an object, and every number is finite.

Python's `json` takes the last of two equal keys, and reads and writes NaN and Infinity, which are not JSON.
"""

import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

MAX_DEPTH, MAX_DIGITS = 64, 40
"""Lists and objects within one another, and digits of a whole number: more than any of our files holds."""
_HALF = re.compile("[\ud800-\udfff]")
_MAY_BE_NO_TEXT = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")
"""An escape that may stand for a NUL or half a character: only then are all texts looked at, which takes longer than to read them."""


def parse_json(text: str | bytes, undefined_is_null: bool = False) -> Any:
    """What a JSON text says.

    Args:
        undefined_is_null: NaN and infinities are read as null: runs have written them for figures without a value.

    Raises:
        ValueError: not JSON, a key that stands twice in an object, a number that is not finite or too long, a text that is none, or more
            levels than any file of ours has; says which.
    """
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text), "surrogatepass")
    try:
        constant = (lambda name: None) if undefined_is_null else _refuse
        tree = json.loads(text, object_pairs_hook=_once, parse_float=_finite, parse_int=_whole, parse_constant=constant)
        if _MAY_BE_NO_TEXT.search(text) or not _is_text(text):
            _check_texts(tree)
        if not _deeper_than(tree, MAX_DEPTH):
            return tree
    except RecursionError:
        pass
    raise ValueError(f"more than {MAX_DEPTH} lists and objects within one another")


def _deeper_than(tree: Any, most: int) -> bool:
    """Whether containers are nested so deep."""
    level = [tree] if type(tree) in (dict, list) else []
    for _ in range(most):
        level = [one for node in level for one in (node.values() if type(node) is dict else node) if type(one) in (dict, list)]
    return bool(level)


def _check_texts(tree: Any) -> None:
    """
    Raises:
        ValueError: a text, or a key, has a NUL or half a character.
    """
    left = [tree]
    while left:
        node = left.pop()
        if isinstance(node, dict):
            left += [*node.keys(), *node.values()]
        elif isinstance(node, list):
            left += node
        elif isinstance(node, str) and ("\0" in node or not _is_text(node)):
            raise ValueError("a text with a NUL or half a character in it")


def _is_text(text: str) -> bool:
    return text.isascii() or _HALF.search(text) is None


def _whole(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"{text[:20]}... is too long a number")
    return int(text)


def format_json(value: Any, **options: Any) -> str:
    """The JSON text of a value, which `parse_json` reads back. A figure that is undefined has to be None (`defined` sees to it).

    Args:
        options: as of `json.dumps`, such as `indent`.

    Raises:
        ValueError: a number is not finite; names its place, such as `ranks.0.time_ms`.
    """
    try:
        return json.dumps(value, allow_nan=False, **options)
    except ValueError as error:
        if place := next(_not_finite(value), None):
            raise ValueError(f"{place[0]} is {place[1]}, and JSON has no such number") from error
        raise


def defined(value: Any) -> Any:
    """The same figures, with None in place of every number that is not finite."""
    if isinstance(value, dict):
        return {key: defined(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [defined(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _not_finite(value: Any, place: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, float) and not math.isfinite(value):
        yield place or "the value", value
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ():
        yield from _not_finite(item, f"{place}.{key}" if place else str(key))


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
