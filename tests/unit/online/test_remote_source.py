"""Windows from object storage: each object of a prefix is taken once, over restarts, and one that has changed is named."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dmoe.checkpoint.progress import OnlineState
from dmoe.config.online_settings import OnlineConfig
from dmoe.data.prepare.schema import load_schema
from dmoe.online import vocabulary
from dmoe.online.ledger import as_lines
from dmoe.online.windows.taking import Taken, Taker
from dmoe.testing.growing_log import write_config, write_window
from tests.s3_server import s3_server

Put = Callable[[str, bytes], Any]


@pytest.fixture(params=["s3", "memory"])
def store(request, monkeypatch) -> Iterator[tuple[str, Put]]:
    """A prefix, and what writes an object under it."""
    if request.param == "s3":
        with s3_server(monkeypatch) as client:
            yield "s3://logs/clicks/", lambda name, text: client.put_object(Bucket="logs", Key=f"clicks/{name}", Body=text)
        return
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.store.clear()
    yield "memory://logs/clicks/", lambda name, text: memory.pipe_file(f"/logs/clicks/{name}", text)
    memory.store.clear()


class Run:
    """A run's start over a source: it takes windows, and learns from none."""

    def __init__(self, folder: Path, source: str, state: OnlineState | None) -> None:
        schema = vocabulary.plain(load_schema(str(folder / "schema.yaml")))
        settings = OnlineConfig(schema_file=str(folder / "schema.yaml"))
        model = vocabulary.model_manifest(schema, settings.ids, "log")
        self.taker = Taker(str(folder), source, schema, settings, model, state, lambda: True)
        self.ledger, self.take = self.taker.ledger, self.taker.next

    def commit(self, taken: Taken) -> None:
        assert taken.window is not None, taken.problem
        files, duplicates = as_lines(taken.choice.files), as_lines(taken.choice.duplicates)
        events = [kind for kind, _ in taken.choice.events]
        line = {"window": taken.number, "state": "trained", "rows": taken.window.rows, "files": files, "duplicates": duplicates}
        self.ledger.add(line | {"events": events, "told": taken.choice.told})
        self.taker.learned(taken.window)


def test_windows_are_taken_from_a_prefix_once_over_restarts(tmp_path, store):
    prefix, put = store
    write_config(tmp_path)

    def text(number: int) -> bytes:
        write_window(tmp_path / "text.csv", number, rows=30)
        return (tmp_path / "text.csv").read_bytes()

    put("_SUCCESS", b"")
    for number in (1, 2, 10):
        put(f"w{number}.csv", text(number))
    run = Run(tmp_path, prefix, None)
    for _ in range(2):
        run.commit(run.take())
    # Taken and not learned, as a killed run leaves it: the next start takes it again.
    assert [one.name for one in run.take().choice.files] == [f"{prefix}w10.csv"]
    put("w1.csv", text(99))
    put("w11.csv", text(11))
    copied = prefix.startswith("s3")
    if copied:
        # S3's tag is of the contents, so that a copy is known by it.
        put("w10-copy.csv", text(2))
    again = Run(tmp_path, prefix, run.ledger.state(run.taker.vocabulary))
    while (taken := again.take()) is not None:
        again.commit(taken)
    lines = again.ledger.lines
    assert [(line["window"], line["rows"], [one["name"] for one in line["files"]]) for line in lines] == [
        (number, 30, [f"{prefix}w{name}.csv"]) for number, name in enumerate((1, 2, 10, 11), 1)
    ]
    assert sorted(event for line in lines for event in line["events"]) == ["changed", *["duplicate"] * copied]
    assert Run(tmp_path, prefix, again.ledger.state(again.taker.vocabulary)).take() is None
