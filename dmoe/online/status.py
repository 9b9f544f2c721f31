"""The status of an online run: its windows and versions. It needs no torch."""

import os
from typing import Any

from dmoe.errors import UserError
from dmoe.json_text import parse_json
from dmoe.online.ledger import Ledger, committed
from dmoe.report.document import Bullets, Cell, Chart, Document, Figures, Heading, Note, Series, Table
from dmoe.storage.paths import inside

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
STATES = {"trained": "good", "quarantined": "bad"}


def status(run: str) -> dict[str, Any]:
    """The committed windows, oldest first; the versions; and the newest checkpoint.

    Raises:
        UserError: there is no such run.
    """
    found = next(committed(run), None) if os.path.isdir(run) else None
    if found is None:
        raise UserError(f"{run}: no run of dmoe online there (no checkpoint with a ledger)")
    folder, state = found
    ledger = Ledger(run, state, cut=False)
    told = {"vocabulary": state["vocabulary"], "windows": ledger.lines, "versions": published_by(run)}
    return {"run": run, "checkpoint": folder, **told}


def published_by(run: str) -> list[dict[str, Any]]:
    """The versions that a run has published, oldest first."""
    path = inside(run, LOG)
    if not os.path.exists(path):
        return []
    with open(path, "rb") as file:
        return [parse_json(line) for line in file if line.endswith(b"\n")]


def status_document(found: dict[str, Any], newest: int = 20) -> Document:
    """The report of a run. On the page, the newest window is first; in the text, it is last.

    Args:
        newest: number of windows, and of alarms and events, in the text; the page has all.
    """
    found = _marked(found)
    rows, told = _rows(found), _told(found)
    return Document(
        f"dmoe online: {found['run']}",
        [
            Note(summary(found), only="page"),
            Heading("Tested before they were learned"),
            Figures(_curves(found)),
            Heading("Alarms and events"),
            Bullets(told or ["none"], "page"),
            Heading("Windows"),
            Table(COLUMNS, rows[::-1], words=(1, 12), only="page"),
            Table(COLUMNS, rows[-newest:], words=(1, 12), only="text"),
            Bullets(told[-newest:], "text"),
            Note(summary(found), only="text"),
        ],
    )


def _marked(found: dict[str, Any]) -> dict[str, Any]:
    """The status with the state `undone` for windows whose training was rolled back."""
    undone = {window for line in found["windows"] for window in line.get("undoes", ())}
    return found | {"windows": [{**line, "state": "undone"} if line["window"] in undone else line for line in found["windows"]]}


def _rows(found: dict[str, Any]) -> list[list[str]]:
    """The values of COLUMNS for each window."""
    versions = {int(one["version"]): one for one in found["versions"]}
    rows = []
    for line in found["windows"]:
        test, ids = line.get("test") or {}, (line.get("data", {}).get("ids") or {}) if line["state"] == "trained" else {}
        names = [os.path.basename(one["name"]) for one in line.get("files", ())]
        version = versions.get(line["window"], {})
        rows.append(
            [
                str(line["window"]),
                Cell(line["state"], STATES.get(line["state"], "faint")),
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


def summary(found: dict[str, Any]) -> str:
    found = _marked(found)
    states = [line["state"] for line in found["windows"]]
    undone = {line["window"] for line in found["windows"] if line["state"] == "undone"}
    counts = ", ".join(f"{states.count(state):,} {state}" for state in dict.fromkeys(states)) or "none yet"
    last = next((one for one in reversed(found["versions"]) if int(one["version"]) not in undone), None)
    version = f"; version {last['version']} ({last['kind']}, {last['bytes']:,} of {last['full_bytes']:,} bytes)" if last else ""
    return f"{len(states):,} windows: {counts}{version}"


def _told(found: dict[str, Any]) -> list[str]:
    """A line for each alarm, note and event."""
    return [
        f"window {line['window']}: {text}"
        for line in found["windows"]
        for text in (*line.get("alarms", ()), *line.get("notes", ()), *line.get("events", ()))
    ]


def _curves(found: dict[str, Any]) -> list[Chart]:
    """Charts of each metric and of the gate mass over the trained windows.

    Points that would dominate the scale are not drawn: the first window, which an untrained model scored, and windows that were not
    trained. Windows with an alarm are marked by a line. The table has all values.
    """
    good = [line for line in found["windows"] if line["state"] == "trained" and line.get("test")]
    good = good[1:] or good
    alarms = [line["window"] for line in found["windows"] if line.get("alarms")]
    events = [line["window"] for line in found["windows"] if line.get("notes") or line.get("events")]
    marks, drawn = [("alarm", alarms), ("note or event", events)], []
    for name, label in CURVES:
        known = [line for line in good if line["test"].get(name) is not None]
        points = Series("learned windows", [line["window"] for line in known], [line["test"][name] for line in known])
        drawn.append(Chart(label, "window", label.partition(":")[0], [points], marks=marks))
    experts, windows = range(len(good[0]["test"]["gate_mass"]) if good else 0), [line["window"] for line in good]
    masses = [Series(f"expert {place}", windows, [line["test"]["gate_mass"][place] for line in good]) for place in experts]
    return [*drawn, Chart("gate mass", "window", "share", masses, marks=marks)]


def _number(value: float | None, digits: int) -> Cell:
    return Cell("-" if value is None else f"{value:.{digits}f}", value=value)
