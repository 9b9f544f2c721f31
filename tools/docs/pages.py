"""MkDocs hook: the pages that are made of the code, so that they cannot differ from it: every command's help, every key of a config,
every published figure.

`mkdocs build` calls `on_files` and `on_page_markdown`; `python -m tools.docs.pages` prints the generated pages.
"""

import importlib
import json
import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from dmoe.cli.main import command_parser, every_command
from dmoe.config.config import Config

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"\[([^\]]*)\]\((\.\./[^)#\s]+)\)")
"""A link that leads out of a page's folder."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages."""
    for name, text in pages().items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Keeps the text alone of a link to a file of the repository that is outside the site, such as `../configs/demo.yaml`."""
    folder = posixpath.dirname(page.file.src_uri)

    def kept(link: re.Match[str]) -> str:
        return link[1] if posixpath.normpath(posixpath.join(folder, link[2])).startswith("../") else link[0]

    return LINK.sub(kept, markdown)


def pages() -> dict[str, str]:
    """Markdown of each generated page, by its path below the site."""
    return {"reference/commands.md": _commands(), "reference/configuration.md": _configuration(), "reference/figures.md": _figures()}


def _figures() -> str:
    """tools/bench/figures.yaml has the commands, docs/figures.json what `tools.bench.figures` measured."""
    known = json.loads((ROOT / "docs/figures.json").read_text())
    lines = [
        "# Figures",
        "",
        "What was measured, where, when, and by which command. `python -m tools.bench.figures NAME` makes one anew, and",
    ]
    lines += ["`tools/bench/README.md` tells what each compares and leaves out. Compare figures of one machine only.", ""]
    figures = yaml.safe_load((ROOT / "tools/bench/figures.yaml").read_text())
    for name, figure in figures.items():
        told = known.get(name, {"value": "not measured by this command yet"})
        rows = [("measured", f"**{told['value']}**"), ("wanted", figure["target"]), ("machine", told.get("machine", ""))]
        if "date" in told:
            rows.append(("date, commit", f"{told['date']}, {told['commit'] or 'commit not kept'}"))
        table = [f"| {what} | {value} |" for what, value in rows if value]
        question = f"{figure['question'][0].upper()}{figure['question'][1:]}."
        lines += [f"## {name.replace('_', ' ')}", "", question, "", "| | |", "| --- | --- |", *table, ""]
        lines += ["```text", figure["command"], "```", ""]
    return "\n".join(lines)


def _commands() -> str:
    lines = ["# Commands", "", "What `dmoe COMMAND --help` prints. `dmoe completion bash` prints the completion of a shell.", ""]
    # argparse fits its help to the terminal, and the page shall be one page everywhere.
    os.environ["COLUMNS"] = "110"
    for words in every_command():
        name, module = f"dmoe {' '.join(words)}", importlib.import_module("dmoe.cli")
        for word in words:
            module = importlib.import_module(module.COMMANDS[word][0])
        lines += [f"## {name}", "", "```text", command_parser(name, module).format_help().rstrip(), "```", ""]
    return "\n".join(lines)


def _configuration() -> str:
    lines = [
        "# Configuration",
        "",
        "Every key of a config file and of `--set key=value`, with its type and default. `configs/*.yaml` are examples;",
        "[Describe an experiment](../experiments.md) tells what the keys are for. Unknown keys are refused with the nearest one named.",
        "",
    ]
    for path, model in _sections(Config):
        lines += [f"## {path or 'the top level'}", ""]
        if path and (text := (model.__doc__ or "").strip()) and not text.startswith("Usage docs"):
            lines += [" ".join(text.split()), ""]
        rows = [_row(path, name, field) for name, field in model.model_fields.items() if _model_of(field.annotation) is None]
        lines += ["| key | type | default | what it does |", "| --- | --- | --- | --- |", *rows, ""]
    return "\n".join(lines)


def _sections(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    yield path, model
    for name, field in model.model_fields.items():
        if below := _model_of(field.annotation):
            yield from _sections(below, f"{path}.{name}".lstrip("."))
        elif get_origin(field.annotation) is dict and (below := _model_of(get_args(field.annotation)[1])):
            yield from _sections(below, f"{path}.{name}.NAME".lstrip("."))


def _model_of(annotation: Any) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _row(path: str, name: str, field: Any) -> str:
    default = "" if field.default is PydanticUndefined else f"`{_yaml(field.default)}`"
    cells = (f"`{f'{path}.{name}'.lstrip('.')}`", _type(field.annotation, field.metadata), default, field.description or "")
    return f"| {' | '.join(cell.replace('|', chr(92) + '|').replace('{', '&#123;') for cell in cells)} |"


def _yaml(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_yaml(each) for each in value)}]"
    return '""' if value == "" else str(value)


def _type(annotation: Any, metadata: list[Any]) -> str:
    """Such as "one of `a`, `b`", "list of integer >= 1" or "number > 0, or null"."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if annotation is type(None):
        return "null"
    if hasattr(annotation, "__metadata__"):
        return _type(parts[0], [bound for each in annotation.__metadata__ for bound in getattr(each, "metadata", [each])])
    if origin is not None and getattr(origin, "__name__", "") == "Literal":
        return "one of " + ", ".join(f"`{each}`" for each in parts)
    if origin in (list, tuple):
        return "list of " + ", ".join(dict.fromkeys(_type(each, []) for each in parts if each is not Ellipsis))
    if origin is dict:
        return f"map of {' to '.join(_type(each, []) for each in parts)}"
    if parts:
        return ", or ".join(_type(each, metadata if each in (int, float) else []) for each in parts)
    said = {int: "integer", float: "number", str: "text", bool: "`true` or `false`", Any: "any"}
    name = "settings" if _model_of(annotation) else said.get(annotation, getattr(annotation, "__name__", str(annotation)))
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    bounds = [f"{sign} {getattr(bound, key)}" for bound in metadata for key, sign in signs.items() if hasattr(bound, key)]
    return f"{name} {', '.join(bounds)}".strip()


if __name__ == "__main__":
    print(*pages().values(), sep="\n")
