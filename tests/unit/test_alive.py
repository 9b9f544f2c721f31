"""Signs of life: printed for a program that asked for them, where a phase lasts."""

import re
import time

import pytest

from dmoe.processes import alive
from tests.waiting import wait_for


@pytest.fixture
def soon(monkeypatch):
    """Phases are told after a moment."""
    monkeypatch.setattr(alive, "FIRST_SECONDS", 0.05)
    monkeypatch.setattr(alive, "TICK_SECONDS", 0.01)
    yield
    alive.end()


def told(capfd, lines):
    """What is on stderr once so many lines are there, without the seconds."""
    found = []

    def read():
        found.append(capfd.readouterr().err)
        return "".join(found).count("\n") >= lines

    wait_for(read)
    return [re.sub(r"\[\d+ s\]", "[N s]", line) for line in "".join(found).splitlines()]


def test_a_phase_that_lasts_is_told_once_with_how_far_it_is(soon, capfd):
    alive.begin("loads PyTorch")
    assert told(capfd, 1) == ["[N s] loads PyTorch"]
    # Nothing is told between the two, however long this thread waits there.
    alive.pause()
    alive.note("plans 26 tables")
    alive.detail("table 3 of 26")
    alive.resume("plans 26 tables")
    assert told(capfd, 1) == ["[N s] plans 26 tables (table 3 of 26)"]
    # The same phase goes on; the next line is due after ten seconds.
    alive.note("plans 26 tables")
    alive.end()
    time.sleep(0.2)
    assert capfd.readouterr().err == ""


def test_a_phase_that_goes_on_is_told_again(soon, monkeypatch, capfd):
    monkeypatch.setattr(alive, "AGAIN_SECONDS", (0.1, 0.2))
    alive.begin("plans 1,000 tables")
    assert told(capfd, 4)[:4] == ["[N s] plans 1,000 tables"] * 4


def test_a_library_prints_nothing(soon, capfd):
    alive.note("plans 26 tables")
    alive.detail("table 3 of 26")
    alive.begin()
    time.sleep(0.2)
    assert capfd.readouterr().err == ""


def test_the_watch_hears_of_every_phase(monkeypatch):
    heard = []
    monkeypatch.setattr(alive, "listener", lambda *what: heard.append(what))
    alive.note("plans 26 tables")
    alive.note("is in a training step", 3)
    assert heard == [("plans 26 tables", 0), ("is in a training step", 3)]
