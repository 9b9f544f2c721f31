"""Times by a format: equal to `datetime.strptime`, which is the reference, and stricter only where that ignores what is written."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmoe.data.prepare.encode.times import parse_times
from dmoe.data.prepare.schema import load_schema, parse_schema
from dmoe.errors import UserError
from tests.unit.data.log.logs import make, read_split

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DATES = [["Y", "m", "d"], ["y", "m", "d"], ["d", "b", "Y"], ["a", "b", "d", "Y"], ["A", "d", "B", "y"], ["Y", "j"], ["m", "d"], ["Y"]]
CLOCKS = [[], ["H"], ["H", "M"], ["H", "M", "S"], ["H", "M", "S", "f"], ["I", "M", "p"], ["p", "I"]]
BETWEEN = ["", "-", "/", " ", ":", "T", ".", "  ", " UTC ", "%%", "(", "\\ "]


def reference(text: str, format: str) -> float | None:
    """Seconds by datetime; None where it refuses the text, ignores its weekday, or takes day 366 for one of the next year."""
    try:
        when = datetime.strptime(text, format)
    except ValueError:
        return None
    for directive in ("%a", "%A"):
        if directive in format and when.strftime(directive).lower() not in text.lower():
            return None
    if "%j" in format and "366" in text and (when.month, when.day) == (1, 1):
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return (when - EPOCH).total_seconds()


def parsed(texts: list[str | None], format: str) -> list[float | None]:
    seconds, ok = parse_times(pa.array(texts, pa.large_string()), format)
    return [second if fine else None for second, fine in zip(seconds.tolist(), ok.tolist(), strict=True)]


@st.composite
def formats(draw: st.DrawFn) -> str:
    parts = draw(st.sampled_from(DATES)) + draw(st.sampled_from(CLOCKS)) + draw(st.sampled_from([[], ["z"]]))
    if draw(st.booleans()):
        parts = draw(st.permutations(parts))
    return "".join(f"%{part}{draw(st.sampled_from(BETWEEN))}" for part in parts)


def mutated(draw: st.DrawFn, text: str) -> str:
    at = draw(st.integers(0, len(text)))
    some = draw(st.sampled_from(["", *"0123456789", " ", "-", "+", ":", "A", "z", "Z", "31", "30", "29", "60", "366", ".5"]))
    return text[:at] + some + text[at + draw(st.integers(0, 2)) :]


@settings(max_examples=200)
@given(st.data())
def test_times_are_those_of_datetime(data: st.DataObject):
    format = data.draw(formats())
    texts = []
    for _ in range(4):
        zone = timezone(timedelta(minutes=data.draw(st.sampled_from([0, 60, 540, -480, 330, 1439, -1439]))))
        when = data.draw(st.datetimes(datetime(1000, 1, 1), datetime(9999, 12, 31))).replace(tzinfo=zone)
        texts += [text := when.strftime(format), text.upper(), mutated(data.draw, text), mutated(data.draw, mutated(data.draw, text))]
    texts = [text for text in texts if text.isascii()]
    for text, found in zip(texts, parsed([*texts, None], format), strict=False):
        expected = reference(text, format)
        assert (found is None) == (expected is None), (text, format)
        assert found is None or found == pytest.approx(expected, rel=1e-15, abs=1e-6), (text, format)
        # Alone, a text of digits of a fixed width is read without the pattern.
        assert parsed([text], format) == [found], (text, format)


@pytest.mark.parametrize(
    ("format", "text", "expected"),
    [
        ("%Y-%m-%d", "2024-02-29", datetime(2024, 2, 29)),
        ("%Y-%m-%d", "2024-02-30", None),
        ("%Y-%m-%d", "2023-02-29", None),
        ("%d.%m.%Y", "31.04.2024", None),
        ("%m-%d", "02-29", None),
        ("%Y-%j", "2023-366", None),
        ("%Y-%j", "2024-366", datetime(2024, 12, 31)),
        ("%Y", "24", None),
        ("%Y %H", "202409", None),
        ("%Y-%m-%d %H:%M:%S", "2024-03-01 23:59:60", None),
        ("%Y-%m-%d %H:%M:%S.%f", "2024-03-01 10:00:00.123", datetime(2024, 3, 1, 10, 0, 0, 123_000)),
        ("%Y-%m-%d %H:%M:%S.%f", "2024-03-01 10:00:00.000007", datetime(2024, 3, 1, 10, 0, 0, 7)),
        ("%Y-%m-%dT%H:%M:%S%z", "2024-03-01T10:00:00+0900", datetime(2024, 3, 1, 1)),
        ("%Y-%m-%dT%H:%M:%S%z", "2024-03-01T10:00:00-08:00", datetime(2024, 3, 1, 18)),
        ("%Y-%m-%dT%H:%M:%S%z", "2024-03-01T10:00:00Z", datetime(2024, 3, 1, 10)),
        ("%Y-%m-%dT%H:%M:%S%z", "2024-03-01T10:00:00", None),
        ("%a %b %d %H:%M:%S UTC %Y", "Fri Mar  1 10:00:00 UTC 2024", datetime(2024, 3, 1, 10)),
        ("%a %b %d %H:%M:%S UTC %Y", "Fri Mar 01 02:01:01 PST 2024", None),
        ("%A %d %B %Y", "monday 1 march 2024", None),
        ("%I:%M %p %d/%m/%y", "12:05 AM 01/03/24", datetime(2024, 3, 1, 0, 5)),
        ("%F %T", "2024-03-01 10:00:07", datetime(2024, 3, 1, 10, 0, 7)),
        ("%D %R", "03/01/24 10:00", datetime(2024, 3, 1, 10)),
        ("%-d/%-m/%Y", "1/3/2024", datetime(2024, 3, 1)),
    ],
)
def test_examples_by_hand(format: str, text: str, expected: datetime | None):
    assert parsed([text, None], format) == [None if expected is None else expected.replace(tzinfo=UTC).timestamp(), None]


@pytest.mark.parametrize(
    ("format", "named"),
    [
        ("%a %b %d %H:%M:%S %Z %Y", "%Z"),
        ("%Y %U %w", "%U"),
        ("%G-W%V-%u", "%G"),
        ("%s", "%s"),
        ("%c", "%c"),
        ("%Y-%m-%d %H:%M %p", "%p"),
        ("%Y-%m-%d %y", "%Y and %y"),
        ("%j %m %Y", "%j and %m"),
        ("%Y-%m-%d %H:%H", "%H and %H"),
        ("%Y-%m-%d %", "% is not read"),
        ("%Ey", "%E"),
        ("unixms", "no directive"),
    ],
)
def test_a_directive_that_would_be_ignored_is_refused_with_the_schema(tmp_path: Path, format: str, named: str):
    path = tmp_path / "schema.yaml"
    path.write_text(f'label: click\ntime: {{column: at, format: "{format}"}}\ncategorical: [site]\n')
    with pytest.raises(UserError) as caught:
        load_schema(str(path))
    assert str(caught.value).startswith(f"{path}: time: ")
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_day_that_is_none_is_a_bad_line_and_milliseconds_are_read(tmp_path: Path):
    times = ["2024-03-01 10:00:00.123", "2024-02-30 10:00:00.123", "2024-03-01 23:59:59.999"]
    (tmp_path / "log.csv").write_text("click,at,site\n" + "".join(f"1,{time},x\n" for time in times))
    tree = {
        "label": "click",
        "time": {"column": "at", "format": "%Y-%m-%d %H:%M:%S.%f"},
        "categorical": ["site", {"name": "hour", "part": "hour"}],
    }
    schema = parse_schema(tree, "schema.yaml")
    data = make(tmp_path / "d", tmp_path / "log.csv", schema=schema, max_bad_share=0.5, min_count=1, split="1,0,0")
    (rejects,) = (data / "rejects").iterdir()
    _, line, kind, reason, _ = rejects.read_text().splitlines()[1].split("\t")
    assert (line, kind) == ("3", "time")
    assert reason.startswith("at is '2024-02-30 10:00:00.123', expected a time")
    assert [row["hour"] for row in read_split(data, "train")] == [2, 3]
    with pytest.raises(UserError, match=r"log.csv:3: at is '2024-02-30"):
        make(tmp_path / "e", tmp_path / "log.csv", schema=schema)


@pytest.mark.parametrize(
    ("format", "value", "kept"), [("unix", "1.7e12", 0), ("unix", "9e10", 1), ("unix_ms", "1e19", 0), ("unix_ms", "1.7e12", 1)]
)
def test_a_number_of_seconds_that_has_no_hour_is_a_bad_line(tmp_path: Path, format: str, value: str, kept: int):
    (tmp_path / "log.csv").write_text(f"click,at,site\n1,1700000000,x\n0,{value},x\n")
    tree = {"label": "click", "time": {"column": "at", "format": format}, "categorical": [{"name": "hour", "part": "hour"}]}
    data = make(tmp_path / "d", tmp_path / "log.csv", schema=parse_schema(tree, "s"), max_bad_share=0.5, split="1,0,0")
    assert len(read_split(data, "train")) == 1 + kept
