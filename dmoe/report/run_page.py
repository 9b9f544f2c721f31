"""The page of one or more runs, side by side: figures, curves, heat maps and experts."""

from collections.abc import Sequence
from dataclasses import replace

from dmoe.report.document import Block, Bullets, Cell, Chart, Document, Figures, Heading, HeatMap, Note, Series, Table
from dmoe.report.indicators import warnings
from dmoe.report.runs import Run, labels, names_of
from dmoe.report.runs import table as figures_of

CURVES = [
    ("Training loss", "train", "loss", "logloss"),
    ("Validation AUC", "validation", "auc", "AUC"),
    ("Validation CEC", "validation", "cec", "mean |r|"),
]
EXPERTS = [
    ("AUC alone", "expert_auc", 4),
    ("AUC without it", "expert_left_out_auc", 4),
    ("logloss alone", "expert_logloss", 4),
    ("gate mass", "gate_mass", 3),
    ("responsibility", "expert_responsibility", 3),
    ("variance", "expert_variance", 4),
    ("dead dims", "dead_dims", 0),
]


def run_document(runs: Sequence[Run], title: str, slices: Sequence[Table | None] = ()) -> Document:
    """The page of finished runs. Its text form has only the figures and the slices.

    Args:
        runs: runs in the order of the page.
        slices: for each run, the table of its experts on slices (`expert_slices.slice_table`), or None. The names of the experts link
            to it.
    """
    ceiling = (
        "Mean |r| over the dimensions of each pair; on the diagonal the ceiling CEC(h, h), what an expert shows with itself."
        " Independent experts would show the floor."
    )
    names = labels(runs)
    blocks: list[Block] = [
        figures_of(runs),
        Heading("Curves"),
        Figures([_curve(runs, names, *curve) for curve in CURVES]),
        Heading("Correlation of the experts on the test rows"),
        Note(ceiling, "faint", "page"),
        Figures([HeatMap(one, run.metrics["cec_matrix"], names_of(run.config)) for run, one in zip(runs, names, strict=True)]),
        Heading("Experts"),
    ]
    for run, name, sliced in zip(runs, names, [*slices, *[None] * (len(runs) - len(slices))], strict=True):
        sliced = replace(sliced, caption=f"Experts of {name} on slices") if sliced else None
        blocks += [Heading(name, 3), _experts(run, name, sliced), Bullets(warnings(run.metrics, names_of(run.config)), "page")]
        blocks += [sliced] if sliced else []
    paths = [[run.config.variant, run.path] for run in runs]
    return Document(title, [*blocks, Heading("Runs"), Table(["variant", "directory"], paths, words=(0, 1), only="page")])


def _curve(runs: Sequence[Run], names: Sequence[str], title: str, kind: str, key: str, label: str) -> Chart:
    return Chart(title, "step", label, [_points(run, name, kind, key) for run, name in zip(runs, names, strict=True)])


def _points(run: Run, name: str, kind: str, key: str) -> Series:
    rows = [row for row in run.history[kind] if row.get(key) is not None]
    return Series(name, [row["step"] for row in rows], [row[key] for row in rows])


def _experts(run: Run, name: str, sliced: Table | None) -> Table:
    columns, link = [(run.metrics.get(key), digits) for _, key, digits in EXPERTS], sliced.caption if sliced else ""
    rows = [
        [Cell(f"{index} {kind}", link=link), *(_figure(values[index] if values else None, digits) for values, digits in columns)]
        for index, kind in enumerate(names_of(run.config))
    ]
    return Table(["expert", *(title for title, _, _ in EXPERTS)], rows, f"Experts of {name}", only="page")


def _figure(value: float | None, digits: int) -> Cell:
    known = value is not None and value == value
    return Cell(f"{value:.{digits}f}" if known else "-", value=value if known else None)
