"""Reports of an acceptance: as lines, as data and as a self-contained page. Host names and paths are masked unless they are requested."""

import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dmoe.accept.finding import FAILED, HELD, SKIPPED, Figure, Finding
from dmoe.json_text import defined
from dmoe.report.document import Block, Cell, Document, Heading, Note, Table

FORMAT, VERSION = "dmoe-accept", 1
MARKS = {HELD: "ok  ", FAILED: "FAIL", SKIPPED: "--  "}
KINDS = {HELD: "good", FAILED: "bad", SKIPPED: "faint"}
ADDRESS = re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.])")
PATH = re.compile(r"(?<![\w<.])(?:[a-z][a-z0-9+.-]*://|~?/)[^\s'\"(),;:]+")


def masked(text: str, hosts: Sequence[str] = ()) -> str:
    """The text with placeholders for paths, addresses and host names.

    Args:
        hosts: host names of the other ranks.
    """
    text = ADDRESS.sub("ADDRESS", PATH.sub("PATH", text))
    for host in (socket.gethostname(), *hosts):
        for name in {host, host.split(".")[0]}:
            text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", "HOST", text) if name else text
    return text


def as_line(finding: Finding) -> Iterator[str]:
    """Yields the lines about a stage for a terminal."""
    yield f"{MARKS[finding.verdict]}  {finding.stage:<17} {finding.seconds:6.1f} s  {finding.meaning}"
    if finding.reason:
        yield f"      {finding.reason}"
    told = [in_words(figure) for figure in finding.figures]
    for start in range(0, len(told), 4):
        yield f"      {'; '.join(told[start : start + 4])}"


def in_words(figure: Figure) -> str:
    return f"{figure.name} {_number(figure.value)}{f' {figure.unit}' if figure.unit else ''}{f' ({figure.limit})' if figure.limit else ''}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) < 1e12 else f"{value:.3g}"


def counts(findings: Sequence[Finding]) -> dict[str, int]:
    return {verdict: sum(finding.verdict == verdict for finding in findings) for verdict in (HELD, FAILED, SKIPPED)}


def summary(findings: Sequence[Finding]) -> str:
    told = counts(findings)
    return f"{told[HELD]} stages held, {told[FAILED]} failed, {told[SKIPPED]} were skipped"


def as_data(findings: Sequence[Finding], about: Mapping[str, Any], names: bool) -> dict[str, Any]:
    """The data for `--json`.

    Args:
        names: whether to keep host names and paths.
    """
    about, hosts = dict(about), about.get("host names", [])
    about = {key: value for key, value in about.items() if names or key != "host names"}
    data: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "held": not counts(findings)[FAILED],
        "counts": counts(findings),
        "about": about | ({"folder": str(Path.cwd())} if names else {}),
        "stages": [asdict(finding) for finding in findings],
    }
    return dict(defined(data if names else _masked(data, hosts)))


def _masked(value: Any, hosts: Sequence[str]) -> Any:
    if isinstance(value, dict):
        return {key: _masked(one, hosts) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_masked(one, hosts) for one in value]
    return masked(value, hosts) if isinstance(value, str) else value


def as_page(findings: Sequence[Finding], about: Mapping[str, Any], names: bool) -> str:
    """The HTML page, with the same content as `as_data`."""
    data = as_data(findings, about, names)
    stages = [
        [
            stage["stage"],
            Cell(stage["verdict"], KINDS[stage["verdict"]]),
            f"{stage['seconds']:.1f} of {stage['bound']:.0f}",
            stage["meaning"],
            stage["reason"],
        ]
        for stage in data["stages"]
    ]
    blocks: list[Block] = [
        Note(f"{summary(findings)}.", "bad" if counts(findings)[FAILED] else "good"),
        Table(["what", "is"], [[key, str(value)] for key, value in data["about"].items()], "The machine", words=(0, 1)),
        Heading("Stages"),
        Table(["stage", "verdict", "seconds", "what it means", "what was seen"], stages, words=(0, 1, 3, 4)),
    ]
    for stage in data["stages"]:
        numbers = [
            [
                one["name"],
                Cell("-" if one["value"] is None else _number(one["value"]), value=one["value"]),
                one["unit"],
                one["limit"] or "-",
            ]
            for one in stage["figures"]
        ]
        blocks += [Heading(stage["stage"], 3), Table(["figure", "value", "unit", "held against"], numbers, words=(0, 2, 3))]
    return Document("Acceptance of dmoe on this machine", blocks).html()
