"""What keeps a run over windows steady: each switch against a reference of its own. That they are exact over kills: test_online.py."""

import json
import multiprocessing
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv as csv
import pytest

from dmoe.checkpoint.contents import Contents
from dmoe.checkpoint.tensors import TensorFile
from dmoe.data.prepare.schema import load_schema
from dmoe.online.vocabulary import load_ids, plain
from dmoe.serve.export.materialise import materialise
from dmoe.serve.scorer import Scorer
from dmoe.testing.elastic import PRELOAD, launch
from dmoe.testing.growing_log import write_config, write_window


@pytest.mark.slow
def test_rates_by_row_frequency_and_the_moving_average_are_what_they_say_on_two_ranks(tmp_path):
    write_window(tmp_path / "logs" / "w1.csv", 1)
    for name, switches in (("plain", {}), ("switched", {"rate_power": -0.5, "ema": 0.9})):
        config = write_config(tmp_path, **switches)
        where = ["--run", str(tmp_path / name / "run"), "--publish", str(tmp_path / name / "versions")]
        (tmp_path / name).mkdir()
        outcome = launch(tmp_path / name, 2, ["--config", config, "--source", str(tmp_path / "logs"), "--once", *where], command="online")
        assert outcome.succeeded, outcome.said
    first, plain_end, end = (
        Contents(str(tmp_path / name / "run" / "checkpoints" / f"step-{step:09d}"))
        for name, step in (("plain", 0), ("plain", 7), ("switched", 7))
    )
    ids = load_ids(str(tmp_path / "plain" / "run" / "vocabulary" / "000001"), plain(load_schema(str(tmp_path / "schema.yaml"))))
    moved = 0
    for name in (one for one in plain_end.names() if not one.startswith(("model/", "optimizer/"))):
        rows = plain_end.shape(name)[0]
        before, after, found = (one.rows(name, 0, rows).astype(np.float64) for one in (first, plain_end, end))
        if ":" not in name:
            seen = ids[name.partition("/")[0]].seen
            factor = np.ones(rows)
            factor[2 : 2 + len(seen)] = np.clip(np.sqrt(np.median(seen) / seen), 0.25, 4)
            moved += int((abs(factor - 1) > 0.05).sum())
            after = before + factor[:, None] * (after - before)
        np.testing.assert_allclose(found, after, rtol=1e-5, atol=1e-7, err_msg=name)
    assert moved > 10
    # The average leaves training as it is; it is what is published.
    dense = "dense.safetensors"
    versions = {name: TensorFile(str(tmp_path / name / "versions" / "versions" / "000001" / dense)) for name in ("plain", "switched")}
    untouched, kept = (TensorFile(f"{one.folder}/{dense}") for one in (plain_end, end))
    assert set(kept.entries) - set(untouched.entries) == {f"optimizer/{name}/ema" for name in versions["plain"].entries}
    for name in untouched.entries:
        np.testing.assert_array_equal(kept.rows(name), untouched.rows(name), err_msg=name)
    for name in versions["plain"].entries:
        np.testing.assert_array_equal(versions["plain"].rows(name), untouched.rows(f"model/{name}"), err_msg=name)
        np.testing.assert_array_equal(versions["switched"].rows(name), kept.rows(f"optimizer/{name}/ema"), err_msg=name)
        assert (kept.rows(f"optimizer/{name}/ema") != kept.rows(f"model/{name}")).any()


def record(arguments: list[str], output: str) -> None:
    """Runs the command, and writes the numbers of each batch that was taught, with what the teacher said."""
    from dataclasses import replace

    from dmoe.cli.main import main
    from dmoe.online import stages

    told: list[Any] = []

    def noted(batch: Any, **more: Any) -> Any:
        told.extend(zip(batch.dense_BD[:, 0].tolist(), more["teacher_B"].sigmoid().tolist(), strict=True))
        return replace(batch, **more)

    stages.replace = noted  # type: ignore[attr-defined]
    code = main(arguments, program="dmoe.online", path=["online"])
    Path(output).write_text(json.dumps(told))
    sys.exit(code)


@pytest.mark.slow
def test_the_teacher_of_a_row_is_the_version_before_its_window(tmp_path):
    for number in (1, 2):
        write_window(tmp_path / "logs" / f"w{number}.csv", number)
    where = ["--source", str(tmp_path / "logs"), "--run", str(tmp_path / "run"), "--publish", str(tmp_path / "versions"), "--once"]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    arguments = ["--config", write_config(tmp_path, teacher=0.5, ema=0.9), *where]
    process = context.Process(target=record, args=(arguments, str(tmp_path / "told.json")))
    process.start()
    process.join()
    assert process.exitcode == 0
    told = json.loads((tmp_path / "told.json").read_text())
    # The first window had no teacher.
    assert len(told) == 400
    table = csv.read_csv(tmp_path / "logs" / "w2.csv")
    scorer = Scorer(materialise(str(tmp_path / "versions" / "versions" / "000001"), str(tmp_path / "made")))
    expected = list(zip(table["price"].to_pylist(), scorer.predict(table).tolist(), strict=True))
    # Rows are known by their price, of which the model reads a logarithm.
    times = Counter(price for price, _ in expected)
    expected = sorted((price, p) for price, p in expected if price is not None and times[price] == 1)
    numbers = Counter(number for number, _ in told)
    found = sorted((number, p) for number, p in told if numbers[number] == 1)[-len(expected) :]
    assert len(expected) > 100
    np.testing.assert_allclose([p for _, p in found], [p for _, p in expected], rtol=1e-4)


@pytest.mark.slow
def test_sums_decay_and_rows_of_the_window_before_are_learned_again_on_two_ranks(tmp_path):
    """Told by the tokens of the first window that the second has not: nothing else moves their rows."""
    for number in (1, 2):
        write_window(tmp_path / "logs" / f"w{number}.csv", number)
    moved = {}
    for name, switches in (("decayed", {"state_decay": 0.5}), ("replayed", {"replay": 0.9})):
        # Room for every token, so that none loses its row.
        config = write_config(tmp_path, **switches, ids={"capacity": 100, "admit_count": 1.0})
        (tmp_path / name).mkdir()
        where = ["--source", str(tmp_path / "logs"), "--run", str(tmp_path / name / "run"), "--once"]
        outcome = launch(tmp_path / name, 2, ["--config", config, *where], command="online")
        assert outcome.succeeded, outcome.said
        steps = [int(path.name.removeprefix("step-")) for path in sorted((tmp_path / name / "run" / "checkpoints").iterdir())]
        assert steps == ([0, 7, 14] if name == "decayed" else [0, 7, 19])
        before, after = (Contents(str(tmp_path / name / "run" / "checkpoints" / f"step-{step:09d}")) for step in steps[1:])
        ids = load_ids(str(tmp_path / name / "run" / "vocabulary" / "000002"), plain(load_schema(str(tmp_path / "schema.yaml"))))
        gone = np.flatnonzero(ids["user"].last == 1) + 2
        assert len(gone) > 2
        for table in ("user/0", "user/1"):
            was, now = (one.rows(table, 0, 100)[gone] for one in (before, after))
            was_sum, now_sum = (one.rows(f"{table}:sum", 0, 100)[gone] for one in (before, after))
            moved[name] = (was != now).any(1)
            if name == "decayed":
                assert not moved[name].any()
                np.testing.assert_array_equal(now_sum, was_sum / 2)
            else:
                # Most rows of the window before come again.
                assert moved[name].mean() > 0.5
                assert (now_sum[moved[name]] >= was_sum[moved[name]]).all()
