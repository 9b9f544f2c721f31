"""Compiled functions: their cached code if processes save at once, and the line that says that they are compiled."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from numba.core.event import Event, EventStatus

from dmoe.processes.compiled import CacheFile, Notice


def test_code_is_never_that_of_another_signature_though_two_processes_save_at_once(tmp_path: Path, monkeypatch):
    one, other = (CacheFile(str(tmp_path), "f-1.py312", "stamp") for _ in range(2))
    save = one._save_data

    def save_after_the_other(*args: Any) -> None:
        # The other has read the index when it was still empty. numba's own files fail here.
        monkeypatch.setattr(other, "_load_index", dict)
        other.save("int64", b"for int64")
        save(*args)

    monkeypatch.setattr(one, "_save_data", save_after_the_other)
    one.save("uint32", b"for uint32")
    fresh = CacheFile(str(tmp_path), "f-1.py312", "stamp")
    assert {key: fresh.load(key) for key in ("uint32", "int64")} == {"uint32": b"for uint32", "int64": b"for int64"}
    assert CacheFile(str(tmp_path), "f-1.py312", "later").load("uint32") is None


@pytest.mark.parametrize(("module", "lines"), [("dmoe.data", 1), ("mine", 0)])
def test_compiling_is_said_once_and_only_that_of_dmoe(capsys, module: str, lines: int):
    notice, data = Notice(), {"dispatcher": SimpleNamespace(py_func=SimpleNamespace(__module__=module))}
    for status in (EventStatus.START, EventStatus.START, EventStatus.END, EventStatus.END) * 2:
        notice.notify(Event("numba:compile", status, data))
    assert capsys.readouterr().err.count("\n") == lines
