"""Who hangs, told from the ranks' signs of life."""

import re
import threading

from dmoe.train.elastic import watchdog as watch
from dmoe.train.elastic.fault_store import LOST
from dmoe.train.elastic.watchdog import Sign, Watch, explain

STEP = "is in a training step"


def test_a_rank_that_gives_no_sign():
    before = {0: Sign(5, STEP, 7, 9.0), 1: Sign(3, STEP, 7, 1.0)}
    now = {0: Sign(6, STEP, 7, 12.0), 1: Sign(3, STEP, 7, 1.0)}
    message = explain(before, now, 2, 10)
    assert message.index("rank 1") < message.index("step 7")
    assert "rank 0" not in message
    assert "run.timeout_seconds" in message


def test_a_rank_that_never_gave_one():
    message = explain({}, {0: Sign(1, STEP, 1, 9.0), 1: Sign(1, STEP, 1, 9.0)}, 3, 8)
    assert "rank 2" in message
    assert "step" not in message.partition(";")[0]


def test_a_rank_that_is_at_something_of_its_own():
    now = {0: Sign(9, STEP, 4, 12.0), 1: Sign(9, "waits for its next batch", 3, 12.0), 2: Sign(9, STEP, 4, 12.0)}
    message = explain({rank: Sign(8, "", 0, 0) for rank in now}, now, 3, 10)
    assert re.search(rf"rank 1 waits for its next batch .*12 s.* 3\b.*{STEP} .*4\b", message)


def test_the_rank_that_is_behind():
    now = {0: Sign(9, STEP, 5, 12.0), 1: Sign(9, "evaluates", 3, 12.0)}
    assert "rank 1 evaluates" in explain({rank: Sign(8, "", 0, 0) for rank in now}, now, 2, 10)


class Silent:
    """A store whose host the network has lost: whoever asks it waits for ever."""

    def __init__(self) -> None:
        self.answer = threading.Event()

    def set(self, *_: str) -> None:
        self.answer.wait()

    check = set


def test_a_rank_ends_by_itself_where_the_store_does_not_answer(capsys, monkeypatch):
    store, codes, ended = Silent(), [], threading.Event()

    def end(code: int) -> None:
        codes.append(code)
        ended.set()
        watching.close()

    monkeypatch.setattr("torch.distributed.get_rank", lambda: 1)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    monkeypatch.setattr(watch, "group_store", lambda: store)
    monkeypatch.setattr(watch, "MARGIN_SECONDS", 0.2)
    monkeypatch.setattr(watch.os, "_exit", end)
    monkeypatch.setenv("MASTER_ADDR", "host-0")
    watching = Watch("dmoe.train", 0.4)
    watching.note("is in a training step", 7)
    assert ended.wait(240)
    store.answer.set()
    assert codes == [LOST]
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert re.search(rf"rank 1 {STEP}, step 7.*host-0", said)
