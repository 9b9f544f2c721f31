"""Negative down-sampling keeps a share of the train split's negatives, and the weights that undo it."""

import math
import random
from fractions import Fraction

import numpy as np
import pytest

from dmoe.data.dataset.manifest import load_manifest
from dmoe.data.prepare.schema import parse_schema
from dmoe.errors import UserError
from tests.unit.data.every_schema import data_of, label_of, random_splits, raw_rows, read, run, uniform
from tests.unit.data.log.logs import make, read_split

STREAM = int.from_bytes(b"negative", "little")


def is_kept(label: int, row: int, share: str, seed: int) -> bool:
    return label == 1 or uniform(seed ^ STREAM, row) < Fraction(share)


def test_a_share_of_the_train_splits_negatives_is_kept_and_weighs_for_all(days, tmp_path):
    rows = raw_rows(days)
    splits, labels = random_splits(len(rows), 7), [label_of(row) for row in rows]
    own = [float(row.get("w", 1)) for row in rows]
    run(days, tmp_path / "whole", seed=7)
    made = run(days, tmp_path / "a", seed=7, negatives=0.25).manifest
    train = [row for row, split in enumerate(splits) if split == 0]
    kept = [row for row in train if is_kept(labels[row], row, "0.25", 7)]
    assert 0 < len(train) - len(kept) < len(train)
    found = read(tmp_path / "a", "train")
    assert found["label"].to_pylist() == [labels[row] for row in kept]
    assert found["@weight"].to_pylist() == [own[row] * (1 if labels[row] else 4) for row in kept]
    whole, place = read(tmp_path / "whole", "train"), {row: at for at, row in enumerate(train)}
    features = [name for name in whole.column_names if name not in ("@weight",)]
    assert found.select(features).equals(whole.select(features).take([place[row] for row in kept]))
    for number, name in enumerate(("train", "validation", "test")):
        if number:
            here = [own[row] for row, split in enumerate(splits) if split == number]
            assert read(tmp_path / "a", name)["@weight"].to_pylist() == here
            assert read(tmp_path / "a", name).select(features).equals(read(tmp_path / "whole", name).select(features))
    assert made.made_by["train_rows"] == {"read": len(train), "kept": len(kept)}
    assert made.splits["train"].rows == len(kept)
    weights = found["@weight"].to_numpy().astype(np.float64)
    assert made.weighted_rate == pytest.approx(weights[found["label"].to_numpy() == 1].sum() / weights.sum())
    vocabularies = {name: data for name, data in data_of(tmp_path / "a").items() if name.startswith("vocabulary")}
    assert vocabularies.items() <= data_of(tmp_path / "whole").items()


def test_bytes_depend_on_share_and_seed_alone(days, tmp_path):
    first = run(days, tmp_path / "a", negatives=0.3, split_by="time").manifest
    in_schema = days[0].model_copy(update={"negatives": 0.3})
    run(days, tmp_path / "b", schema=in_schema, split_by="time", workers=3, block_bytes=4000)
    assert data_of(tmp_path / "a") == data_of(tmp_path / "b")
    for number, options in enumerate([{"seed": 1}, {"negatives": 0.31}, {"negatives": 1.0}]):
        other = run(days, tmp_path / str(number), **{"negatives": 0.3, "split_by": "time", **options}).manifest
        assert other.made_by["fingerprint"] != first.made_by["fingerprint"]
        assert other.rows_hash != first.rows_hash
    assert other.weight == days[0].weight


def test_data_to_score_are_whole(days, tmp_path):
    run(days, tmp_path / "a", negatives=0.3, ids="hash", hash_size="60")
    scored = run(days, tmp_path / "b", vocabulary=str(tmp_path / "a"), scoring=True).manifest
    assert scored.splits["score"].rows == 1500
    assert scored.weight == days[0].weight


def planted(rows: int) -> tuple[str, list[float]]:
    """A log of one number, whose clicks have the chance 1 / (1 + exp(3 - x)); and the chances."""
    draw, lines, chances = random.Random(0), ["y,x,s"], []
    for _ in range(rows):
        x = draw.choice([-1.0, 0.0, 1.0])
        chances.append(1 / (1 + math.exp(3 - x)))
        lines.append(f"{int(draw.random() < chances[-1])},{x},a")
    return "\n".join(lines) + "\n", chances


def fitted(x_N: np.ndarray, y_N: np.ndarray, weight_N: np.ndarray) -> np.ndarray:
    """Intercept and slope of a weighted logistic regression, by Newton's method."""
    design, theta = np.stack([np.ones_like(x_N), x_N], 1), np.zeros(2)
    for _ in range(25):
        p = 1 / (1 + np.exp(-design @ theta))
        theta += np.linalg.solve((design * (weight_N * p * (1 - p))[:, None]).T @ design, design.T @ (weight_N * (y_N - p)))
    return theta


def test_rate_logloss_and_calibration_of_training_are_the_whole_logs(tmp_path):
    text, chances = planted(40_000)
    (tmp_path / "log").write_text(text)
    tree = {"label": "y", "dense": ["x"], "categorical": ["s"], "negatives": 0.1}
    common = {"schema": parse_schema(tree, "s"), "split": "0.5,0.25,0.25", "rows_per_shard": 20_000, "row_group_rows": 4096}
    make(tmp_path / "a", tmp_path / "log", **common)
    train = read_split(tmp_path / "a", "train")
    x_N, y_N, weight_N = (np.array([row[name] for row in train], np.float64) for name in ("x", "label", "@weight"))
    assert len(train) < 5_000
    rate = sum(chances) / len(chances)
    # A kept negative has variance (1 / share - 1) of its weight; four deviations of 1,800 of them, and of the clicks.
    assert (weight_N @ y_N) / weight_N.sum() == pytest.approx(rate, rel=4 * math.sqrt(1 / 1400 + 1 / 1800))
    assert load_manifest(str(tmp_path / "a")).base_rate("train") == pytest.approx((weight_N @ y_N) / weight_N.sum())
    intercept, slope = fitted(x_N, y_N, weight_N)
    test = read_split(tmp_path / "a", "test")
    predicted = 1 / (1 + np.exp(-(intercept + slope * np.array([row["x"] for row in test]))))
    clicks = sum(row["label"] for row in test)
    assert predicted.sum() / clicks == pytest.approx(1, abs=0.2)
    unweighted = fitted(x_N, y_N, np.ones_like(y_N))
    assert (1 / (1 + np.exp(-(unweighted[0] + unweighted[1] * np.array([row["x"] for row in test]))))).sum() / clicks > 3
    truth = np.array([1 / (1 + math.exp(3 - x)) for x in x_N])
    loss_N = -(y_N * np.log(truth) + (1 - y_N) * np.log(1 - truth))
    entropy = sum(-p * math.log(p) - (1 - p) * math.log(1 - p) for p in chances) / len(chances)
    assert (weight_N @ loss_N) / weight_N.sum() == pytest.approx(entropy, rel=0.1)


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5])
def test_a_share_that_is_none_is_refused(days, tmp_path, share):
    with pytest.raises(UserError, match="--negatives"):
        run(days, tmp_path / "a", negatives=share)
    with pytest.raises(UserError, match="negatives"):
        parse_schema({"label": "y", "categorical": ["a"], "negatives": share}, "s")
