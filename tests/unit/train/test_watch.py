"""Who hangs, told from the ranks' signs of life."""

from dmoe.train.watch import Sign, explain

STEP = "is in a training step"


def test_a_rank_that_gives_no_sign():
    before = {0: Sign(5, STEP, 7, 9.0), 1: Sign(3, STEP, 7, 1.0)}
    now = {0: Sign(6, STEP, 7, 12.0), 1: Sign(3, STEP, 7, 1.0)}
    message = explain(before, now, 2, 10)
    assert "rank 1 gives no sign of life; last it is in a training step, step 7" in message
    assert "run.timeout_seconds" in message


def test_a_rank_that_never_gave_one():
    assert "rank 2 gives no sign of life;" in explain({}, {0: Sign(1, STEP, 1, 9.0), 1: Sign(1, STEP, 1, 9.0)}, 3, 8)


def test_a_rank_that_is_at_something_of_its_own():
    now = {0: Sign(9, STEP, 4, 12.0), 1: Sign(9, "waits for its next batch", 3, 12.0), 2: Sign(9, STEP, 4, 12.0)}
    message = explain({rank: Sign(8, "", 0, 0) for rank in now}, now, 3, 10)
    assert "rank 1 waits for its next batch for 12 s, step 3" in message
    assert "the others wait: each is in a training step (step 4)" in message


def test_the_rank_that_is_behind():
    now = {0: Sign(9, STEP, 5, 12.0), 1: Sign(9, "evaluates", 3, 12.0)}
    assert "rank 1 evaluates" in explain({rank: Sign(8, "", 0, 0) for rank in now}, now, 2, 10)
