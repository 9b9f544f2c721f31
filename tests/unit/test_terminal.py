"""Lines of text, lines of JSON, and the progress line of a terminal."""

import io
import json
import math
import re

import pytest

from dmoe import terminal
from dmoe.data import progress
from dmoe.data.progress import Progress
from dmoe.errors import UserError, run_command
from dmoe.names import show
from dmoe.processes import alive

ESCAPE = "\x1b"


class Screen(io.StringIO):
    """A terminal of 80 columns that keeps what it is given."""

    def isatty(self) -> bool:
        return True

    def rows(self) -> list[str]:
        """What a person sees: carriage return and "erase to the end of the line" are carried out, colours are left out."""
        seen = [""]
        for part in re.split(r"(\r\x1b\[K|\n)", re.sub(r"\x1b\[\d+m", "", self.getvalue())):
            if part == "\n":
                seen.append("")
            elif part == "\r\x1b[K":
                seen[-1] = ""
            else:
                seen[-1] += part
        return seen


@pytest.fixture(autouse=True)
def _plain(monkeypatch):
    for name in (terminal.FORMAT, "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


@pytest.fixture
def _json(monkeypatch):
    monkeypatch.setenv(terminal.FORMAT, "json")


@pytest.fixture
def at_once(monkeypatch):
    """Progress is told at every update."""
    monkeypatch.setattr(progress, "TERMINAL_SECONDS", 0.0)
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.0)


def test_colours_are_for_a_terminal_and_never_with_no_color(monkeypatch):
    def told() -> str:
        screen = Screen()
        terminal.tell("x is odd", "warning", stream=screen)
        assert screen.rows() == ["x is odd", ""]
        return screen.getvalue()

    assert ESCAPE in told()
    monkeypatch.setenv("TERM", "dumb")
    assert ESCAPE not in told()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert ESCAPE not in told()
    monkeypatch.delenv("NO_COLOR")
    pipe = io.StringIO()
    terminal.tell("x is odd", "error", stream=pipe)
    assert pipe.getvalue() == "x is odd\n"


def test_a_line_takes_the_place_of_the_progress_line_which_comes_again_below(at_once):
    screen = Screen()
    bar = Progress("count", 100, stream=screen)
    bar.update(50)
    assert screen.rows()[-1].startswith("count: 50 rows, 50%, ")
    terminal.tell("halfway", stream=screen)
    bar.update(25)
    assert screen.rows()[0] == "halfway"
    assert screen.rows()[1].startswith("count: 75 rows, 75%, ")
    bar.close()
    assert screen.rows() == ["halfway", ""]


def test_a_progress_line_never_wraps(at_once):
    screen = Screen()
    Progress("a" * 200, stream=screen).update(1)
    assert len(screen.rows()[0]) == 79
    terminal.show_progress("", screen)


def test_what_was_done_before_has_no_part_in_the_speed():
    bar = Progress("train", 100, stream=io.StringIO())
    bar.begun(20)
    bar.update(40)
    found = bar.numbers(10.0)
    assert (found["rows"], found["share"], found["rows_per_second"], found["seconds_left"]) == (60, 0.6, 4.0, 10.0)


def test_where_nobody_looks_progress_is_whole_lines_or_none(at_once):
    pipe = io.StringIO()
    Progress("train", 100, stream=pipe, unit="samples", terminal_only=True).update(50)
    assert pipe.getvalue() == ""
    bar = Progress("count", 100, stream=pipe)
    bar.update(50)
    bar.close()
    (line,) = pipe.getvalue().splitlines()
    assert line.startswith("count: 50 rows, 50%, ")
    assert ESCAPE not in line


@pytest.mark.usefixtures("_json")
def test_json_lines_have_time_level_event_message_and_numbers(at_once, capsys):
    screen = Screen()
    terminal.tell("step 5\nof 10", "warning", "step", screen, step=5, loss=math.nan)
    Progress("count", 100, stream=screen).update(50)
    (first, second) = (json.loads(line) for line in screen.getvalue().splitlines())
    assert first.pop("time") > 1e9
    assert first == {"level": "warning", "event": "step", "message": "step 5\nof 10", "step": 5, "loss": None}
    assert (second["event"], second["what"], second["rows"], second["share"]) == ("progress", "count", 50, 0.5)

    def fail() -> None:
        import sys

        show("warning: odd \ud800", sys.stderr)
        raise UserError("--x: no such file")

    assert run_command("dmoe train", fail) == 2
    (first, second) = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (first["level"], first["message"]) == ("warning", "warning: odd \ud800")
    assert (second["level"], second["event"], second["code"], second["message"]) == ("error", "error", 2, "dmoe train: --x: no such file")


def test_signs_of_life_rest_while_something_else_tells(monkeypatch, capfd):
    monkeypatch.setattr(alive, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(alive, "TICK_SECONDS", 0.001)
    alive.resume("nobody asked for signs")
    alive.begin()
    alive.pause()
    alive.note("is in a step")
    alive.resume("loads the best checkpoint")
    found = ""
    while "\n" not in found:
        found += capfd.readouterr().err
    alive.end()
    assert re.match(r"\[\d+ s\] loads the best checkpoint\n", found)
