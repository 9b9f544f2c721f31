"""YAML that says one thing: PyYAML takes the last of two equal keys without a word."""

from typing import Any

import yaml

_RAISED = (yaml.YAMLError, RecursionError, ValueError, TypeError, AttributeError)
"""What PyYAML raises: a value that does not fit its tag (`!!timestamp x`) makes its constructors fail each in its own way."""


class NotYaml(ValueError):
    """What is wrong, in one line. `where` is `:LINE`, or empty where PyYAML names no line."""

    def __init__(self, problem: str, where: str) -> None:
        super().__init__(problem)
        self.where = where


class OnceLoader(yaml.SafeLoader):
    """Plain data only, and no key twice in a mapping. Merged keys (`<<`) may be overridden, as YAML has it."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            name, line = (key.tag, key.value), key.start_mark.line + 1
            if name in lines:
                problem = f"key '{key.value[:80]}' stands twice, first in line {lines[name]}"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            lines[name] = line
        return node


def parse_yaml(text: str | bytes, loader: type[OnceLoader] = OnceLoader) -> Any:
    """What a YAML text, or the UTF-8 bytes of one, says.

    Raises:
        NotYaml: not YAML, not text, or a key that stands twice.
    """
    try:
        return yaml.load(text, loader)  # a _Loader of plain data
    except _RAISED as error:
        mark = getattr(error, "problem_mark", None)
        lines = str(getattr(error, "problem", None) or error).splitlines() or [type(error).__name__]
        raise NotYaml(lines[0][:300], f":{mark.line + 1}" if mark else "") from None
