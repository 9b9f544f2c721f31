"""Reads a finished run from its directory."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, model_validator

from dmoe.config.config import Config, load_config
from dmoe.config.strict import Open, checked
from dmoe.errors import UserError
from dmoe.json_text import parse_json
from dmoe.report.document import Cell, Table
from dmoe.storage.paths import PATHS, check_regular, inside, read_bounded

MAX_BYTES = 64 << 20


Figure = Annotated[float, Field(ge=-1e15, le=1e15)] | None
"""null if the figure has no value."""


class Figures(Open):
    """The figures of a test that reports read. With M experts, lists have M numbers, and matrices M lists of M numbers."""

    rows: int = Field(0, ge=0)
    positives: int = Field(0, ge=0)
    auc: Annotated[float, Field(ge=0, le=1)] | None
    logloss: Figure = None
    ne: Figure = None
    calibration: Figure = None
    cec: Figure = None
    cec_floor: Figure = None
    cec_by_class: list[Figure] | None = None
    cec_within_class: Figure = None
    cec_matrix: list[list[Annotated[float, Field(ge=0, le=1e15)]]]
    ambiguity: Figure = None
    ambiguity_even: Figure = None
    expert_logloss: list[Figure] | None = None
    expert_responsibility: list[Figure] | None = None
    cka_matrix: list[list[Annotated[float, Field(ge=-1e15, le=1e15)]]]
    dead_dims: list[int]
    expert_variance: list[Annotated[float, Field(ge=0, le=1e15)]]
    expert_auc: list[Figure]
    expert_left_out_auc: list[Figure] | None = None
    gate_mass: list[Annotated[float, Field(ge=0, le=1e15)]] = Field(min_length=1, max_length=64)
    effective_experts: Annotated[float, Field(ge=0, le=1e15)]
    samples_per_second: Figure = None
    eval_samples_per_second: Figure = None
    data: str | None = None
    split: str | None = None

    @model_validator(mode="after")
    def _are_of_as_many_experts(self) -> "Figures":
        experts = len(self.gate_mass)
        for name in ("dead_dims", "expert_variance", "expert_auc", "expert_left_out_auc", "expert_logloss", "expert_responsibility"):
            figures = getattr(self, name)
            # Where no expert can be left out, the list is empty.
            absent = figures is None or (name == "expert_left_out_auc" and not figures)
            if not absent and len(figures) != experts:
                raise ValueError(f"{name} is of {len(figures)} experts, gate_mass of {experts}")
        for name in ("cec_matrix", "cka_matrix"):
            matrix = getattr(self, name)
            if len(matrix) != experts or any(len(row) != experts for row in matrix):
                raise ValueError(f"{name} is no matrix of {experts} x {experts} numbers")
        return self


class Line(Open):
    """The fields of a line of metrics.jsonl that reports read."""

    kind: str
    step: int = Field(ge=0, le=1 << 62)
    loss: Figure = None
    auc: Figure = None
    cec: Figure = None


@dataclass(frozen=True)
class Run:
    """Config and final figures of a run, and the lines of its metrics.jsonl by kind (`train`, `validation`)."""

    path: str
    config: Config
    metrics: dict[str, Any]
    history: dict[str, list[dict[str, Any]]]


def load_run(path: str, evaluation: str = "metrics") -> Run:
    """Reads the directory of a run.

    Args:
        evaluation: name of the figures to read: those of the run itself, or of a later `dmoe.evaluate --output NAME.json`.

    Raises:
        UserError: there is no run, or it has not ended.
    """
    if not PATHS.exists(inside(path, "config.yaml")):
        raise UserError(f"{path}: no run there (no config.yaml)")
    if evaluation != "metrics" and not PATHS.exists(inside(path, f"{evaluation}.json")):
        raise UserError(f"{path}: no {evaluation}.json there; make it with python -m dmoe.evaluate --run {path} --output {evaluation}.json")
    if not PATHS.exists(inside(path, "metrics.json")):
        raise UserError(f"{path}: the run has not ended (no metrics.json); train it to its end, with --resume if it was stopped")
    config = load_config(inside(path, "config.yaml"))
    figures = load_figures(inside(path, f"{evaluation}.json"))
    experts = len(config.model.experts)
    if len(figures["gate_mass"]) != experts:
        raise UserError(f"{path}: its figures are of {len(figures['gate_mass'])} experts, its config has {experts}; evaluate it again")
    return Run(path, config, figures, _history(inside(path, "metrics.jsonl")))


def load_figures(path: str) -> dict[str, Any]:
    """Reads the figures of a test from a file that training or `dmoe.evaluate` wrote.

    Raises:
        UserError: the file is damaged; the message names the figure.
    """
    advice = "; evaluate the run again with dmoe.evaluate"
    try:
        tree = parse_json(read_bounded(path, MAX_BYTES, "run's figures"), undefined_is_null=True)
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}){advice}") from None
    checked(Figures.model_validate, tree, path, advice)
    return dict(tree)


def _history(path: str) -> dict[str, list[dict[str, Any]]]:
    """Reads the lines of metrics.jsonl, by kind."""
    history: dict[str, list[dict[str, Any]]] = {"train": [], "validation": []}
    try:
        check_regular(path, path)
        with PATHS.open(path, "r") as file:
            for number, line in enumerate(file, 1):
                row = parse_json(line, undefined_is_null=True)
                history.setdefault(checked(Line.model_validate, row, f"{path}:{number}").kind, []).append(row)
    except (ValueError, FileNotFoundError) as error:
        raise UserError(f"{path}: damaged ({error})") from None
    return history


COLUMNS = [
    ("AUC", "auc", "{:.4f}"),
    ("logloss", "logloss", "{:.4f}"),
    ("NE", "ne", "{:.4f}"),
    ("CEC", "cec", "{:.4f}"),
    ("CEC floor", "cec_floor", "{:.4f}"),
    ("ambiguity", "ambiguity", "{:.4f}"),
    ("samples/s", "samples_per_second", "{:,.0f}"),
]


def labels(runs: Sequence[Run]) -> list[str]:
    """Labels of runs on a page: the variant, with the directory if several runs have the same variant."""
    variants = [run.config.variant for run in runs]
    return [f"{name}, {run.path}" if variants.count(name) > 1 else name for name, run in zip(variants, runs, strict=True)]


def table(runs: Sequence[Run]) -> Table:
    """A table of the figures of the test split, with one row per run."""
    rows = []
    for run, label in zip(runs, labels(runs), strict=True):
        values = [run.metrics.get(key) for _, key, _ in COLUMNS]
        figures = [
            Cell("-" if value is None else form.format(value), value=value) for value, (_, _, form) in zip(values, COLUMNS, strict=True)
        ]
        rows.append([label, *figures])
    return Table(["variant", *(title for title, _, _ in COLUMNS)], rows)


def names_of(config: Config | None) -> list[str]:
    """The kinds of the experts of a config; none for an ensemble, which has no config."""
    return [spec if isinstance(spec, str) else str(spec["kind"]) for spec in config.model.experts] if config else []
