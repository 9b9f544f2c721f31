"""Imports run one way through the packages of the library."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LEVELS = [
    {"launch"},
    {"cli"},
    {"online", "report", "testing"},
    {"serve"},
    {"train"},
    {"metrics"},
    {"checkpoint"},
    {"sharding"},
    {"model"},
    {"data"},
]
"""A package imports from lower lines and from modules beside the packages, such as dmoe.config."""
LEAVES = {"dmoe.report.document", "dmoe.report.html", "dmoe.report.plots", "dmoe.report.statistics"}
"""Know no subject: any package may use them."""
ENTRIES = {"dmoe.__main__", "dmoe.evaluate", "dmoe.train.__main__", "dmoe.doctor", "dmoe.ray_nodes"}
"""Programs: started, never imported by a package below the command line."""


def name_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = {name_of(file): file for folder in ("dmoe", "tools") for file in sorted((ROOT / folder).rglob("*.py"))}


def imports_of(module: str, at_import: bool = False) -> set[str]:
    """The files of this repository that a file imports; `at_import` leaves out what functions import when they run."""
    tree = ast.parse(FILES[module].read_text())
    delayed = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    found = set()
    for node in ast.walk(tree):
        if at_import and id(node) in delayed:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found & FILES.keys()


def level_of(module: str) -> int | None:
    part = module.split(".")[1] if "." in module else ""
    return next((number for number, packages in enumerate(LEVELS) if part in packages), None)


@pytest.mark.parametrize("module", [name for name in FILES if name.startswith("dmoe.") and name not in ENTRIES])
def test_a_file_imports_from_its_own_package_and_from_those_below(module):
    mine = level_of(module)
    for other in imports_of(module) - LEAVES:
        theirs = level_of(other)
        if mine is None:
            assert theirs is None, f"{module} is beside the packages and imports {other}"
        elif theirs is not None and module.split(".")[1] != other.split(".")[1]:
            assert theirs > mine, f"{module} imports {other}, which stands above it or beside it"


def test_leaves_import_no_subject():
    for leaf in LEAVES & FILES.keys():
        assert {level_of(one) for one in imports_of(leaf) - LEAVES} <= {None, level_of(leaf)}
        assert all(level_of(one) is None for one in imports_of(leaf) - LEAVES - {"dmoe.report"})
