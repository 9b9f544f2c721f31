"""Loads exposures, which `dmoe serve --split` writes as parquet, and clicks from CSV or parquet."""

import datetime
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from dmoe.data.prepare.encode.times import YEAR_5000
from dmoe.errors import UserError, first_line, nearest, one_line, shown
from dmoe.json_text import parse_json
from dmoe.names import quoted
from dmoe.serve.ab.exposures import PREFIX, SCHEMA, SPLIT_KEY
from dmoe.storage.paths import PATHS, join

NEEDED = [name for name in SCHEMA.names if not name.startswith("shadow_")]
TIME = pa.timestamp("us", "UTC")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True)
class Test:
    """The test that is described in the metadata of the exposure files.

    Attributes:
        arms: name of each arm -> share of the traffic; the control first.
    """

    __test__ = False
    name: str
    control: str
    arms: dict[str, float]


def parse_window(text: str) -> float:
    """Parses a duration such as `30m`, `24h` or `7d` into seconds.

    Raises:
        UserError: not a duration.
    """
    found = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)([smhd])", text)
    if not found or float(found[1]) <= 0:
        raise UserError(f"--window {shown(text)}: expected a time such as 30m, 24h or 7d")
    return float(found[1]) * UNITS[found[2]]


def parse_time(text: str, asked_by: str) -> int:
    """Parses an ISO time into microseconds since 1970. The time is UTC if it has no zone.

    Raises:
        UserError: not an ISO time.
    """
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise UserError(f"{asked_by} {shown(text)}: expected a date or time such as 2026-12-01T08:00") from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
    return round(moment.timestamp() * 1e6)


def load_exposures(path: str, since: int | None = None, until: int | None = None) -> tuple[pa.Table, Test]:
    """Loads all rows of a folder of exposures, or of one file, ordered by time.

    Args:
        since, until: microseconds since 1970; used only to select the shares of the arms.

    Raises:
        UserError: no exposures, missing columns, files of several tests, or proportions of the arms that changed between `since` and
            `until`.
    """
    if not PATHS.exists(path):
        raise UserError(f"--exposures {path}: no such file or folder")
    paths = [path]
    if PATHS.isdir(path):
        paths = [join(path, name) for name in sorted(map(os.path.basename, PATHS.ls(path))) if re.fullmatch(f"{PREFIX}.*\\.parquet", name)]
    if not paths:
        raise UserError(f"--exposures {path}: no file {PREFIX}*.parquet in it; `dmoe serve --split` writes them")
    tables, abouts = [], []
    for one in paths:
        table = _read_parquet(one, NEEDED)
        abouts.append((_about(one, table), table))
        for name, kind in zip(SCHEMA.names, SCHEMA.types, strict=True):
            if name not in table.column_names:
                table = table.append_column(name, pa.nulls(len(table), kind))
        try:
            tables.append(table.select(SCHEMA.names).cast(SCHEMA))
        except pa.ArrowException as error:
            raise UserError(f"{one}: {first_line(error)}") from None
    table = pa.concat_tables(tables)
    for name in NEEDED:
        if nulls := table[name].null_count:
            raise UserError(f"--exposures {path}: {nulls:,} rows have no '{name}'")
    return table.sort_by("time").combine_chunks(), _test_of(path, abouts, since, until)


def _about(path: str, table: pa.Table) -> dict[str, Any]:
    text = (table.schema.metadata or {}).get(SPLIT_KEY)
    try:
        about: dict[str, Any] = parse_json(text or b"")
        shares = {str(name): float(share) for name, share in about["arms"].items()}
        return {"test": str(about["test"]), "salt": str(about["salt"]), "control": str(about["control"]), "arms": shares}
    except (ValueError, TypeError, KeyError, AttributeError):
        raise UserError(f"{path}: its metadata '{SPLIT_KEY.decode()}' name no test: `dmoe serve --split` writes them") from None


def _test_of(path: str, abouts: Sequence[tuple[dict[str, Any], pa.Table]], since: int | None, until: int | None) -> Test:
    """The test, with the shares of its arms between `since` and `until`."""
    starts = sorted((pc.min(table["time"]).cast(pa.int64()).as_py(), number) for number, (_, table) in enumerate(abouts) if len(table))
    if not starts:
        raise UserError(f"--exposures {path}: no row")
    periods: list[tuple[int, dict[str, Any]]] = []
    for start, number in starts:
        about = abouts[number][0]
        for key in ("test", "salt", "control"):
            if periods and about[key] != periods[0][1][key]:
                raise UserError(f"--exposures {path}: files of several tests: {key} {quoted(periods[0][1][key])} and {quoted(about[key])}")
        if not periods or _proportions(about["arms"]) != _proportions(periods[-1][1]["arms"]):
            periods.append((start, about))
    ends = [start for start, _ in periods[1:]] + [None]
    asked = [
        (start, about)
        for (start, about), end in zip(periods, ends, strict=True)
        if (until is None or start < until) and (since is None or end is None or end > since)
    ]
    if len(asked) > 1:
        at = datetime.datetime.fromtimestamp(asked[1][0] / 1e6, datetime.UTC).isoformat(timespec="seconds")
        raise UserError(
            f"--exposures {path}: the arms' shares changed their proportions at {at}, and days of different mixtures cannot be compared;"
            f" read one period: --until {at} or --since {at}"
        )
    about = (asked or periods[-1:])[0][1]
    control = about["control"]
    if control not in about["arms"]:
        raise UserError(f"--exposures {path}: the control {quoted(control)} is no arm")
    return Test(about["test"], control, {control: about["arms"][control], **about["arms"]})


def _proportions(arms: dict[str, float]) -> dict[str, float]:
    total = sum(arms.values()) or 1.0
    return {name: round(share / total, 9) for name, share in sorted(arms.items()) if share}


def load_clicks(paths: Sequence[str]) -> pa.Table:
    """Loads clicks with `request_id` (and `row`, if there is such a column) or with `unit`, and with `time` if there is such a column.

    Raises:
        UserError: a file cannot be read or lacks columns.
    """
    tables = []
    for path in paths:
        table = _read_parquet(path, []) if path.endswith(".parquet") else _read_csv(path)
        names = set(table.column_names)
        if "request_id" not in names and not {"unit", "time"} <= names:
            there = ", ".join(one_line(name, 40) for name in table.column_names[:10])
            raise UserError(f"{path}: expected columns request_id (and row), or unit and time, found {there or 'none'}")
        columns = {}
        for name in ("request_id", "unit"):
            if name in names:
                columns[name] = table[name].cast(pa.string())
        if "row" in names:
            columns["row"] = _cast(table["row"], pa.int32(), path, "row")
        if "time" in names:
            columns["time"] = _times(table["time"], path)
            if nulls := columns["time"].null_count:
                raise UserError(f"{path}: {nulls:,} clicks have no time")
        tables.append(pa.table(columns))
    if any(set(table.column_names) != set(tables[0].column_names) for table in tables):
        raise UserError(f"--clicks: {paths[0]} and another file have different columns of request_id, row, unit and time")
    return pa.concat_tables([table.select(tables[0].column_names) for table in tables]).combine_chunks()


def _read_parquet(path: str, needed: Sequence[str]) -> pa.Table:
    if not PATHS.exists(path):
        raise UserError(f"{path}: no such file")
    try:
        with PATHS.open(path, "rb") as file:
            table = pq.read_table(file)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: cannot be read as parquet ({first_line(error)})") from None
    for name in needed:
        if name not in table.column_names:
            raise UserError(f"{path}: no column '{name}'{nearest(name, table.column_names)}")
    return table


def _read_csv(path: str) -> pa.Table:
    if not PATHS.exists(path):
        raise UserError(f"--clicks {path}: no such file")
    as_text = pa.csv.ConvertOptions(column_types={name: pa.string() for name in ("request_id", "unit", "time", "row")})
    try:
        with PATHS.open(path, "rb") as file:
            return pa.csv.read_csv(file, convert_options=as_text)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: cannot be read as CSV with a header ({first_line(error)})") from None


def _cast(column: pa.ChunkedArray, kind: pa.DataType, path: str, name: str) -> pa.ChunkedArray:
    try:
        return column.cast(kind)
    except pa.ArrowException as error:
        raise UserError(f"{path}: {name}: {first_line(error)}") from None


def _times(column: pa.ChunkedArray, path: str) -> pa.ChunkedArray:
    """Converts ISO times or seconds since 1970 into timestamps. Times without a zone are UTC."""
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        number = pc.all(pc.match_substring_regex(column, r"^[0-9]+(\.[0-9]*)?$")).as_py()
        if not number:
            zoned = pc.any(pc.match_substring_regex(column, r"(Z|[+-][0-9]{2}:?[0-9]{2})$")).as_py()
            return _cast(_cast(column, TIME if zoned else pa.timestamp("us"), path, "time"), TIME, path, "time")
        column = _cast(column, pa.float64(), path, "time")
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        seconds = column.cast(pa.float64())
        if len(column) and (largest := pc.max(seconds).as_py() or 0) > YEAR_5000:
            raise UserError(f"{path}: time: {largest:.0f} is after the year 5000; give seconds since 1970 (divide milliseconds by 1000)")
        micros = pc.round(pc.multiply(seconds, 1e6))
        return _cast(_cast(micros, pa.int64(), path, "time"), TIME, path, "time")
    return _cast(column, TIME, path, "time")
