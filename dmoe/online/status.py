"""What became of each window of a run: as text, as JSON, as a page with curves. No torch."""

import os
from typing import Any

from dmoe.errors import UserError
from dmoe.json_text import parse_json
from dmoe.online.ledger import Ledger, committed
from dmoe.paths import inside
from dmoe.report.html import Cell, bullets, document, figures, paragraph, table
from dmoe.report.plots import curves

LOG = "published.jsonl"
COLUMNS = (
    "window",
    "state",
    "rows",
    "AUC",
    "logloss",
    "NE",
    "calibration",
    "CEC",
    "ids born",
    "evicted",
    "version",
    "freshness s",
    "files",
)
DIGITS = {"auc": 4, "logloss": 4, "ne": 4, "calibration": 3, "cec": 3}
CURVES = (
    ("auc", "AUC"),
    ("ne", "normalised entropy"),
    ("logloss", "logloss"),
    ("calibration", "calibration: predicted / observed"),
    ("cec", "CEC: mean |r| of experts"),
)


def status(run: str) -> dict[str, Any]:
    """The windows that are done, oldest first; the versions; and where the model is.

    Raises:
        UserError: no such run.
    """
    found = next(committed(run), None) if os.path.isdir(run) else None
    if found is None:
        raise UserError(f"{run}: no run of dmoe online there (no checkpoint with a ledger)")
    folder, state = found
    ledger = Ledger(run, state, cut=False)
    path, versions = inside(run, LOG), []
    if os.path.exists(path):
        with open(path, "rb") as file:
            versions = [parse_json(line) for line in file if line.endswith(b"\n")]
    return {"run": run, "checkpoint": folder, "vocabulary": state["vocabulary"], "windows": ledger.lines, "versions": versions}


def as_rows(found: dict[str, Any]) -> list[list[str]]:
    """COLUMNS of each window."""
    versions = {int(one["version"]): one for one in found["versions"]}
    rows = []
    for line in found["windows"]:
        test, ids = line.get("test") or {}, (line.get("data", {}).get("ids") or {}) if line["state"] == "trained" else {}
        names = [os.path.basename(one["name"]) for one in line.get("files", ())]
        version = versions.get(line["window"], {})
        rows.append(
            [
                str(line["window"]),
                line["state"],
                f"{line['rows']:,}",
                *(_number(test.get(name), digits) for name, digits in DIGITS.items()),
                f"{ids.get('born', 0):,}",
                f"{ids.get('evicted', 0):,}",
                f"{version['kind']} {version['bytes'] / version['full_bytes']:.0%}" if version else "-",
                _number(version.get("freshness"), 1),
                names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "") if names else "",
            ]
        )
    return rows


def as_text(found: dict[str, Any], newest: int = 20) -> str:
    """The newest windows, and what was told of them."""
    rows = [list(COLUMNS), *as_rows(found)[-newest:]]
    widths = [max(len(row[place]) for row in rows) for place in range(len(COLUMNS))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    told = _told(found)
    return "\n".join([*(line.rstrip() for line in lines), *told[-newest:], summary(found)])


def summary(found: dict[str, Any]) -> str:
    states = [line["state"] for line in found["windows"]]
    counts = ", ".join(f"{states.count(state):,} {state}" for state in dict.fromkeys(states)) or "none yet"
    last = found["versions"][-1] if found["versions"] else None
    version = f"; version {last['version']} ({last['kind']}, {last['bytes']:,} of {last['full_bytes']:,} bytes)" if last else ""
    return f"{len(states):,} windows: {counts}{version}"


def _told(found: dict[str, Any]) -> list[str]:
    """Alarms, notes and events, a line each."""
    return [
        f"window {line['window']}: {text}"
        for line in found["windows"]
        for text in (*line.get("alarms", ()), *line.get("notes", ()), *line.get("events", ()))
    ]


def page(found: dict[str, Any]) -> str:
    """A self-contained HTML page."""
    drawn, good = [], [line for line in found["windows"] if line["state"] == "trained" and line.get("test")]
    # What would press the others into a corner is not drawn: the first window, scored by an untrained model, as the watch leaves it out,
    # and those with an alarm, which have a line. The table has their figures.
    good = good[1:] or good
    alarms = [line["window"] for line in found["windows"] if line.get("alarms")]
    events = [line["window"] for line in found["windows"] if line.get("notes") or line.get("events")]
    marks = [("alarm", alarms), ("note or event", events)]
    for name, label in CURVES:
        points = [(line["window"], line["test"][name]) for line in good if line["test"].get(name) is not None]
        if points:
            groups = [("learned windows", [x for x, _ in points], [y for _, y in points])]
            drawn.append(curves(label, groups, "window", label.partition(":")[0], marks))
    experts = len(good[0]["test"]["gate_mass"]) if good else 0
    if experts:
        windows = [line["window"] for line in good]
        masses = [(f"expert {place}", windows, [line["test"]["gate_mass"][place] for line in good]) for place in range(experts)]
        drawn.append(curves("gate mass", masses, "window", "share", marks))
    rows = [[row[0], Cell(row[1], {"trained": "good", "quarantined": "bad"}.get(row[1], "faint")), *row[2:]] for row in as_rows(found)]
    told = _told(found)
    return document(
        f"dmoe online: {found['run']}",
        [
            paragraph(summary(found)),
            "<h2>Tested before they were learned</h2>",
            figures(drawn),
            "<h2>Alarms and events</h2>",
            bullets(told) if told else paragraph("none", "faint"),
            "<h2>Windows</h2>",
            table(COLUMNS, rows[::-1]),
        ],
    )


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
