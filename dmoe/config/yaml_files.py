"""YAML files of keys and values: plain data within bounds, and laid over the files that they extend.

YAML 1.2's numbers, where PyYAML follows 1.1: `1e-3` is a number; `010`, `1:30`, `2024-03-01` and `.inf` are text.
"""

import math
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

import yaml

from dmoe.errors import UserError, one_line, shown
from dmoe.storage.paths import join, read_bounded

MAX_BYTES, MAX_EXTENDS, MAX_DEPTH, MAX_VALUES = 1 << 20, 8, 64, 1 << 18
"""Of a file; files that extend one another; lists within lists; values of a file once every alias is written out."""
_TAG = "tag:yaml.org,2002:"
_NUMBERS = {
    # A number of more digits than any field takes is read as text, which the field refuses.
    "int": (r"[-+]?(?:0|[1-9][0-9_]{0,17}|0b[01_]{1,62}|0x[0-9a-fA-F_]{1,15})", "-+0123456789"),
    "float": (r"[-+]?(?:(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9_]+)[eE][-+]?[0-9]+|[0-9][0-9_]*\.[0-9_]*|\.[0-9_]+)", "-+.0123456789"),
}
_RAISED = (yaml.YAMLError, RecursionError, ValueError, TypeError, AttributeError, KeyError)
"""What PyYAML raises of a text that is no YAML, or holds bytes that are no text."""


class NotYaml(ValueError):
    """What is wrong, in one line. `where` is `:LINE`, or empty where PyYAML names no line."""

    def __init__(self, problem: str, where: str) -> None:
        super().__init__(problem)
        self.where = where


class _Loader(yaml.SafeLoader):
    """Texts, numbers, booleans, nulls, lists and mappings from text to those; no key twice, no alias of what holds it."""

    yaml_constructors: dict[Any, Any]  # type: ignore[misc]  # each class has its own, as PyYAML gives it
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _wrong(f"more than {MAX_DEPTH} lists and mappings within one another", self.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _wrong("a key that is a list or a mapping, expected text", key.start_mark)
            if key.value in lines:
                raise _wrong(f"key '{one_line(key.value, 80)}' stands twice, first in line {lines[key.value]}", key.start_mark)
            lines[key.value] = key.start_mark.line + 1
        return node

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if node is not None:
            count, depth = _size_of(node, {})
            if count > MAX_VALUES or depth > 2 * MAX_DEPTH:
                raise _wrong(
                    f"its aliases stand for more than {MAX_VALUES:,} values, or for {2 * MAX_DEPTH} within one another", node.start_mark
                )
        return node

    def text(self, node: Any) -> str:
        text = str(self.construct_scalar(node))
        if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
            raise _wrong("a text with a NUL or half a character in it", node.start_mark)
        return text

    def number(self, node: Any, read: Callable[[str], Any]) -> Any:
        text = self.text(node).replace("_", "")
        try:
            number = read(text if len(text) < 400 else "too long")
        except ValueError:
            raise _wrong(f"'{one_line(text, 40)}' is no number that is taken", node.start_mark) from None
        if not math.isfinite(number) or (isinstance(number, int) and number.bit_length() > 63):
            raise _wrong(f"{one_line(text, 40)} is too large a number", node.start_mark)
        return number

    def mapping(self, node: Any) -> Any:
        """In two steps, as PyYAML builds what others refer to. A key is the text that stands there, whatever it looks like."""
        made: dict[str, Any] = {}
        yield made
        self.flatten_mapping(node)
        made.update({self.text(key): self.construct_object(value) for key, value in node.value})


_Loader.yaml_constructors = {
    f"{_TAG}str": _Loader.text,
    f"{_TAG}int": lambda loader, node: loader.number(node, lambda text: int(text, 0)),
    f"{_TAG}float": lambda loader, node: loader.number(node, float),
    f"{_TAG}bool": yaml.SafeLoader.construct_yaml_bool,
    f"{_TAG}null": yaml.SafeLoader.construct_yaml_null,
    f"{_TAG}seq": yaml.SafeLoader.construct_yaml_seq,
    f"{_TAG}map": _Loader.mapping,
    None: yaml.SafeLoader.construct_undefined,
}


class _Dumper(yaml.SafeDumper):
    """Puts quotes around what either YAML 1.1 or `_Loader` would read as something else than text. Writes no anchors: a list that stands
    in two places is written twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


# Lists of their own: PyYAML shares them between the loaders of a process.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag.removeprefix(_TAG) in ("bool", "null", "merge")]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _name, (_pattern, _first) in _NUMBERS.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_TAG + _name, re.compile(f"^(?:{_pattern})$"), list(_first))


def _size_of(node: Any, known: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """How many values a node stands for once its aliases are written out, and how deep they lie; a long text counts as several."""
    if id(node) not in known:
        known[id(node)] = None
        if isinstance(node, yaml.ScalarNode):
            known[id(node)] = 1 + len(node.value) // 16, 1
        else:
            inside = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
            sizes = [_size_of(part, known) for part in inside]
            count, depth = sum(size for size, _ in sizes), max((depth for _, depth in sizes), default=0)
            known[id(node)] = min(1 + count, MAX_VALUES + 1), 1 + depth
    found = known[id(node)]
    if found is None:
        raise _wrong("an alias stands within what it stands for", node.start_mark)
    return found


def _wrong(problem: str, mark: Any) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, mark)


def parse_yaml(text: str | bytes) -> Any:
    """What a YAML text, or the UTF-8 bytes of one, says.

    Raises:
        NotYaml: not YAML, not text, a key that stands twice, or more than any of our files holds.
    """
    try:
        return yaml.load(text, _Loader)
    except _RAISED as error:
        mark = getattr(error, "problem_mark", None)
        problem = str(getattr(error, "problem", None) or str(error).partition("\n")[0] or type(error).__name__)
        raise NotYaml(one_line(problem, 300), f":{mark.line + 1}" if mark else "") from None


def dump_yaml(tree: Any) -> str:
    """The text that `parse_yaml` reads back to an equal tree."""
    return str(yaml.dump(tree, Dumper=_Dumper, sort_keys=False))


def flow_yaml(tree: Any) -> str:
    """As `dump_yaml`, on one line without its end: `{name: price, transform: log1p}`. What a screen does not show as it is, is escaped."""
    lines = [
        str(yaml.dump([tree], Dumper=_Dumper, sort_keys=False, default_flow_style=True, width=sys.maxsize, allow_unicode=unicode))
        for unicode in (True, False)
    ]
    return next((line for line in lines if line[:-1].isprintable()), lines[-1])[1:-2]


def parse_mapping(text: str | bytes, where: str, expected: str) -> dict[str, Any]:
    """The keys and values of a text; none where it is empty.

    Args:
        where: begins the error messages.
        expected: what should be there, such as `a line a feature`.

    Raises:
        UserError: not YAML, or no keys and values.
    """
    try:
        tree = parse_yaml(text)
    except NotYaml as error:
        raise UserError(f"{where}{error.where}: not YAML: {error}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(f"{where}: expected {expected}, found {type(tree).__name__}")
    return tree


def read_mapping(path: str, asked_by: str, kind: str, expected: str) -> dict[str, Any]:
    """As `parse_mapping`, of a file; see `read_bounded` for kind."""
    return parse_mapping(read_bounded(path, MAX_BYTES, kind, asked_by), path, expected)


def read_extended(path: str, asked_by: str, kind: str, expected: str, names: Sequence[str] = ()) -> dict[str, Any]:
    """As `read_mapping`; a file that `extends:` another, named relative to itself, is laid over that one.

    Args:
        names: keys whose values are file names too: each is relative to the file that it stands in.

    Raises:
        UserError: as the others, where files extend one another in a circle, and where one names a file of another machine.
    """
    trees: list[dict[str, Any]] = []
    while True:
        tree = read_mapping(path, asked_by, kind, expected)
        for key in ("extends", *names):
            if key in tree:
                tree[key] = _beside(path, key, tree[key])
        trees.append(tree)
        if len(trees) > MAX_EXTENDS + 1:
            raise UserError(f"{path}: more than {MAX_EXTENDS} files extend one another; is there a circle?")
        if (base := tree.pop("extends", None)) is None:
            break
        path, asked_by = base, f"{path}: extends: {base}"
    merged: dict[str, Any] = {}
    for tree in reversed(trees):
        merged = laid_over(merged, tree)
    return merged


def _beside(path: str, key: str, name: Any) -> str:
    """What a file means by a file's name: relative to its own folder.

    Raises:
        UserError: no name, or one that would make whoever reads the file open a connection or wait on a device.
    """
    if not isinstance(name, str) or not name:
        raise UserError(f"{path}: {key}: expected a file's name, found {shown(name)}")
    if "://" in name or name.startswith(("/dev/", "/proc/")):
        raise UserError(f"{path}: {key}: {one_line(name)}: expected a file of this machine; copy it beside this one")
    return name if name.startswith("/") else join(path.rpartition("/")[0], name)


def laid_over(base: Any, top: Any) -> Any:
    """Two trees as one: where both have a key, the one on top has its way; lists are values."""
    if isinstance(base, dict) and isinstance(top, dict):
        return base | {key: laid_over(base[key], value) if key in base else value for key, value in top.items()}
    return top
