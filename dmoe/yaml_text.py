"""YAML that says one thing: PyYAML takes the last of two equal keys without a word."""

from typing import Any

import yaml


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


def parse_yaml(text: str, loader: type[OnceLoader] = OnceLoader) -> Any:
    """What a YAML text says.

    Raises:
        yaml.YAMLError: not YAML, or a key that stands twice.
        RecursionError, ValueError, TypeError, AttributeError: PyYAML's own, of values that do not fit their tags.
    """
    return yaml.load(text, loader)  # a _Loader of plain data
