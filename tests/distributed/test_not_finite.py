"""A number that makes outputs overflow ends an evaluation on all ranks alike, by name, and leaves no figures and no predictions."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dmoe import distributed
from dmoe.data.dataset.manifest import load_manifest
from dmoe.metrics.evaluation import NotFinite
from dmoe.testing.small_data import make_data_set
from dmoe.testing.small_run import open_small, small_config, train_steps
from dmoe.train.evaluate import evaluate


@pytest.fixture(scope="module")
def extreme(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A data set whose last test row has I2 = 3e38, finite as every number of a data set."""
    folder: Path = tmp_path_factory.mktemp("extreme")
    make_data_set(folder)
    shard = load_manifest(str(folder)).splits["test"].shards[-1]
    table = pq.read_table(folder / shard.path)
    values = table["I2"].to_numpy().copy()
    values[-1] = 3e38
    pq.write_table(table.set_column(table.column_names.index("I2"), "I2", pa.array(values)), folder / shard.path, row_group_size=256)
    return str(folder)


def evaluated(data: str, path: str, auc: str) -> tuple[str, float]:
    """What the test split's evaluation says, then the validation's AUC: the session is sound after it."""
    session = open_small(small_config(data, "metrics.predictions=true", f"metrics.auc={auc}", "train.eval_batch_size=64"))
    train_steps(session, 3)
    message = ""
    try:
        evaluate(session, session.reader("test", in_order=True), final=(path, 3))
    except NotFinite as error:
        message = str(error)
    distributed.broadcast_object(message)
    return message, evaluate(session, session.reader("validation"))["auc"]


@pytest.mark.parametrize(("world_size", "auc"), [(1, "exact"), (3, "binned")])
def test_every_rank_refuses_and_names_the_number(ranks, extreme, tmp_path, world_size, auc):
    results = ranks(world_size).run(evaluated, extreme, str(tmp_path / "p.npz"), auc)
    ((message, value),) = set(results)
    assert message.startswith(f"{extreme}, split 'test': 1 row with an output that is not finite")
    assert "the largest number of the first is I2, 3e+38" in message
    assert "\n" not in message
    assert 0 < value < 1
    assert not list(tmp_path.iterdir())


def test_figures_of_a_sound_split_are_all_numbers_or_none(ranks, data_set):
    (figures,) = ranks(1).run(sound, data_set)
    json.dumps(figures, allow_nan=False)
    assert np.isfinite([figures[name] for name in ("auc", "logloss", "ne", "calibration", "cec")]).all()


def sound(data: str) -> dict[str, object]:
    session = open_small(small_config(data))
    train_steps(session, 3)
    return evaluate(session, session.reader("test"))
