"""Versions of a server: warmed up, changed under load, linked between processes, freed."""

import gc
import shutil
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from dmoe.errors import UserError
from dmoe.serve.export.delta import make_delta
from dmoe.serve.scorer import Scorer
from dmoe.serve.server.scratch import Scratch
from dmoe.serve.server.versions import Versions, load_version, other_columns
from dmoe.testing.small_scorer import small_scorer
from tests.unit.serve.test_server import ROWS, scored, served
from tests.waiting import wait_for


def test_a_version_has_looked_up_texts_and_numbers_before_it_answers(folder, monkeypatch):
    seen, predict = [], Scorer.predict
    monkeypatch.setattr(Scorer, "predict", lambda self, rows: (predict(self, rows), seen.extend(rows))[0])
    columns = load_version(str(folder / "one" / "scorer")).columns
    assert {type(row[name]) for row in seen if row for name in columns} == {str, int}


@pytest.mark.parametrize("time", ["unix", "%d.%m.%Y %H:%M"])
def test_a_version_whose_rows_need_a_time_is_warmed_up_too(tmp_path, monkeypatch, time):
    scored, predict = [], Scorer.predict
    monkeypatch.setattr(Scorer, "predict", lambda self, rows: scored.append(predict(self, rows)) or scored[-1])
    load_version(small_scorer(str(tmp_path), time=time))
    assert [len(one) for one in scored] == [1, 1]


def test_another_version_takes_over_between_two_batches_and_a_bad_one_does_not(folder, tmp_path):
    of_name = {}
    pointer = tmp_path / "current"
    pointer.write_text(f"{folder}/one/scorer\n")
    expected = {name: Scorer(str(folder / name / "scorer")).predict(ROWS[:5]) for name in ("one", "two")}
    assert np.abs(expected["one"] - expected["two"]).max() > 1e-3
    with served(str(pointer), follow_seconds=0.05) as (address, app):
        stop, answers = threading.Event(), []

        def load() -> None:
            while not stop.is_set():
                answers.append(scored(address, ROWS[:5]))

        with ThreadPoolExecutor(3) as pool:
            loads = [pool.submit(load) for _ in range(3)]
            versions = app.state.server.versions
            for name in ("one", "two", "one", "two"):
                pointer.write_text(f"{folder}/{name}/scorer\n")
                wait_for(lambda name=name: versions.current.folder == f"{folder}/{name}/scorer")
                of_name[versions.current.name] = name
                before = len(answers)
                wait_for(lambda before=before: versions.current.name in [version for version, _ in answers[before:]])
            shutil.copytree(folder / "one" / "scorer", tmp_path / "damaged")
            (tmp_path / "damaged" / "tables.safetensors").write_bytes(b"no")
            before = versions.current.name
            pointer.write_text("damaged\n")
            # Not of a pointer file that was read half-written.
            wait_for(lambda: versions._refused and versions._refused[0].endswith("damaged"))
            assert versions.current.name == before
            stop.set()
            for one in loads:
                one.result()
    assert {of_name[version] for version, _ in answers} == {"one", "two"}
    for version, found in answers:
        np.testing.assert_allclose(found, expected[of_name[version]], rtol=1e-4)


def test_processes_link_the_full_scorer_of_a_delta_and_leave_nothing(folder, tmp_path):
    delta = folder / "one" / "delta"
    make_delta(str(folder / "one" / "scorer"), str(folder / "two" / "scorer"), "scorer", str(delta))
    one, two = (load_version(str(delta), scratch=Scratch(str(tmp_path))) for _ in range(2))
    assert one.scorer.folder != two.scorer.folder
    inodes = {Path(version.scorer.folder, "tables.safetensors").stat().st_ino for version in (one, two)}
    assert len(inodes) == 1
    one.remove()
    np.testing.assert_allclose(two.scorer.predict(ROWS), Scorer(str(folder / "two" / "scorer")).predict(ROWS), rtol=1e-6)
    two.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_a_process_that_starts_under_a_bad_version_answers_as_the_others_do(folder, tmp_path):
    pointer, told, shared = tmp_path / "current", [], tmp_path / "shared"
    shared.mkdir()

    def start() -> Versions:
        return Versions(str(pointer), lambda *event: told.append(event), "--model current", scratch=Scratch(str(shared)))

    pointer.write_text("nothing\n")
    with pytest.raises(UserError):
        start()
    pointer.write_text(f"{folder}/one/scorer\n")
    first = start().current.name
    pointer.write_text("nothing\n")
    later = start()
    later.look()
    assert later.current.name == first
    assert [event[0] for event in told] == ["loaded", "loaded", "refused"]


def test_a_version_that_reads_other_columns_is_told_of():
    assert other_columns(("site", "user"), ("user", "site")) == ""
    said = other_columns(("site", "user"), ("user", "page"))
    assert said.index("'page'") < said.index("'site'")
    assert "'user'" not in said


def test_a_replaced_version_needs_no_garbage_collector(folder):
    gc.disable()
    try:
        version = load_version(str(folder / "one" / "scorer"))
        scorer = version.scorer
        parts = [weakref.ref(one) for one in (version, scorer, scorer.encoder, scorer.rows, scorer.mixture)]
        del version, scorer
        assert [one() for one in parts] == [None] * 5
    finally:
        gc.enable()
