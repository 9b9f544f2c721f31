"""The log of exposures: every row is in one whole file, whatever the disk does to it."""

import json
import os
import threading
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from dmoe.serve.ab import exposures
from dmoe.serve.ab.exposures import Exposure, ExposureLog
from tests.waiting import wait_for

SPLIT = {"test": "t", "arms": {"a": 0.5}}


def one(n: int, rows: int = 2, shadow: bool = False) -> Exposure:
    score_B = np.arange(rows, dtype=np.float32) / 10
    return Exposure(f"u{n}", "a", "v1", score_B, f"r{n}", 1_700_000_000.25 + n, score_B + 0.5 if shadow else None, "v2" if shadow else None)


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("exposures-*.parquet"))


def test_rows_of_many_threads_are_in_whole_files_once(tmp_path):
    log = ExposureLog(str(tmp_path / "e"), 50, 1000, SPLIT)
    for half in (range(10), range(10, 20)):
        threads = [threading.Thread(target=lambda k=k, half=half: [log.add(one(100 * k + n, 1 + n % 3)) for n in half]) for k in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # The thread that writes may be late: all rows could be in one file.
        wait_for(lambda: files(tmp_path / "e"))
    log.close()
    assert {path.name for path in (tmp_path / "e").iterdir()} == {path.name for path in files(tmp_path / "e")}
    assert len(files(tmp_path / "e")) > 1
    table = [row for path in files(tmp_path / "e") for row in pq.read_table(path).to_pylist()]
    expected = {(f"r{100 * k + n}", row) for k in range(5) for n in range(20) for row in range(1 + n % 3)}
    assert len(table) == len(expected)
    assert {(row["request_id"], row["row"]) for row in table} == expected
    about = pq.read_schema(files(tmp_path / "e")[0]).metadata[b"dmoe.split"]
    assert json.loads(about) == SPLIT


def test_what_a_row_says(tmp_path):
    log = ExposureLog(str(tmp_path), 10, 1000, SPLIT)
    log.add(one(3, 2, shadow=True))
    log.add(one(4, 1))
    log.close()
    rows = pq.read_table(files(tmp_path)[0]).to_pylist()
    assert [row["shadow_score"] for row in rows] == [pytest.approx(0.5), pytest.approx(0.6), None]
    assert [row["shadow_version"] for row in rows] == ["v2", "v2", None]
    first = rows[1]
    assert (first["unit"], first["arm"], first["version"], first["request_id"], first["row"]) == ("u3", "a", "v1", "r3", 1)
    assert first["score"] == pytest.approx(0.1)
    assert first["time"].timestamp() == 1_700_000_003.25


def test_a_file_is_written_when_its_first_row_is_old_enough(tmp_path):
    log = ExposureLog(str(tmp_path), 1000, 0.05, SPLIT)
    log.add(one(1))
    wait_for(lambda: files(tmp_path))
    log.add(one(2))
    wait_for(lambda: len(files(tmp_path)) == 2)
    log.close()
    assert len(files(tmp_path)) == 2


def test_a_full_disk_keeps_what_it_can_and_counts_what_it_loses(tmp_path, monkeypatch):
    told: list[tuple[int, int, str]] = []
    full = threading.Event()
    full.set()
    write = exposures.write_atomic

    def write_atomic(path: str):
        if full.is_set():
            raise OSError(28, os.strerror(28), path)
        return write(path)

    monkeypatch.setattr(exposures, "write_atomic", write_atomic)
    log = ExposureLog(str(tmp_path), 10, 0.05, SPLIT, lambda *event: told.append(event))
    for n in range(50):
        log.add(one(n))
    wait_for(lambda: told)
    assert told[0][0] == 0
    assert "No space left" in told[0][2]
    assert not list(tmp_path.iterdir())
    full.clear()
    wait_for(lambda: any(written for written, _, _ in told))
    log.close()
    kept = sum(pq.read_metadata(path).num_rows for path in files(tmp_path))
    assert kept == sum(written for written, _, _ in told) >= 40
    assert kept + sum(lost for _, lost, _ in told) == 100


def test_rows_that_cannot_be_written_at_the_end_are_told_as_lost(tmp_path, monkeypatch):
    told: list[tuple[int, int, str]] = []
    log = ExposureLog(str(tmp_path / "e"), 1000, 1000, SPLIT, lambda *event: told.append(event))
    (tmp_path / "e").rmdir()
    log.add(one(1, 3))
    log.close()
    log.add(one(2, 3))
    ((written, lost, problem),) = told
    assert (written, lost) == (0, 3)
    assert "e/exposures-" in problem
