"""Imports run one way through the packages of the library, and no file imports itself by way of others."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LEVELS = [
    {"launch"},
    {"cli"},
    {"accept"},
    {"online", "report", "testing"},
    {"serve"},
    {"train"},
    {"metrics"},
    {"checkpoint"},
    {"sharding"},
    {"model"},
    {"data"},
]
"""A package imports from lower lines and from modules beside the packages, such as dmoe.config.config."""
ENTRIES = {
    "dmoe.__main__",
    "dmoe.accept.__main__",
    "dmoe.evaluate",
    "dmoe.train.__main__",
    "dmoe.online.__main__",
    "dmoe.doctor",
    "dmoe.ray_nodes",
    "dmoe.testing.elastic",
}
"""Programs: started, never imported by a package below the command line."""


def name_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = {name_of(file): file for folder in ("dmoe", "tools") for file in sorted((ROOT / folder).rglob("*.py"))}
LEAVES = {name for name in FILES if name.startswith("dmoe.report.document")} | {"dmoe.report.statistics"}
"""Know no subject: any package may use them."""


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


def test_no_file_imports_itself_by_way_of_others():
    reached: dict[str, int] = {}

    def visit(module: str, path: list[str]) -> None:
        if reached.get(module) == 2:
            return
        assert reached.get(module) != 1, f"a circle: {' -> '.join([*path[path.index(module) :], module])}"
        reached[module] = 1
        for other in sorted(imports_of(module)):
            if other != module:
                visit(other, [*path, module])
        reached[module] = 2

    for module in FILES:
        visit(module, [])


def test_the_library_imports_neither_tools_nor_tests_benches_no_tests_and_tests_no_benches():
    tests = {name_of(file): file for file in sorted((ROOT / "tests").rglob("*.py")) if file.parent.name != "bench"}
    for module, file in (FILES | tests).items():
        tree = ast.parse(file.read_text())
        named = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        named |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        forbidden = {"tools": {"tests"}, "tests": {"tools"}}.get(module.split(".")[0], {"tests", "tools"})
        assert not {name for name in named if name.split(".")[0] in forbidden}, module
