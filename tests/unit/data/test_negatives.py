"""Negative down-sampling keeps a share of the train split's negatives, and the weights that undo it."""

import math
import random
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from dmoe.data.dataset.manifest import load_manifest
from dmoe.data.prepare.schema import Schema, load_schema, parse_schema
from dmoe.errors import UserError
from tests.unit.data.every_schema import data_of, label_of, random_splits, raw_rows, read, run, tokens_of, uniform
from tests.unit.data.log.logs import make

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


CHANCES = {"a": 0.02, "b": 0.05, "c": 0.12}
"""Chance of a click by a row's token."""
FEATURE = {"criteo": "C1", "avazu": "site_id", "any": "site"}
ANY = {"label": "y", "weight": "w", "group": "u", "time": {"column": "t", "format": "%Y-%m-%d"}}
ANY |= {"categorical": ["site", {"name": "bag", "separator": "/", "pooling": "sum"}]}


def planted(kind: str, path: Path, rows: int) -> Schema:
    """Writes a log whose clicks have the chances of their tokens."""
    draw = random.Random(0)
    tokens = [draw.choice("abc") for _ in range(rows)]
    labels = [int(draw.random() < CHANCES[token]) for token in tokens]
    if kind == "any":
        lines = ["y,w,u,t,site,bag"]
        lines += [f"{y},{1 + row % 2},u{row % 9},2024-01-01,{one},x/y" for row, (y, one) in enumerate(zip(labels, tokens, strict=True))]
    elif kind == "criteo":
        lines = [f"{y}" + "\t" * 14 + one + "\t" * 25 for y, one in zip(labels, tokens, strict=True)]
    else:
        names = [one.name for one in load_schema("avazu_x4").categorical if not one.part and one.name != "site_id"]
        lines = [",".join(["id", "click", "hour", "site_id", *names])]
        lines += [f"{row},{y},14102100,{one}" + ",x" * len(names) for row, (y, one) in enumerate(zip(labels, tokens, strict=True))]
    path.write_text("\n".join(lines) + "\n")
    return parse_schema(ANY, "s") if kind == "any" else load_schema("criteo" if kind == "criteo" else "avazu_x4")


@pytest.mark.parametrize("kind", FEATURE)
def test_rate_logloss_and_calibration_of_training_are_the_whole_logs(tmp_path, kind):
    """A model with a parameter for each token, fitted to the kept rows by their weights: its probabilities are the weighted rates."""
    schema = planted(kind, tmp_path / "log", 40_000).model_copy(update={"negatives": 0.1})
    make(tmp_path / "d", tmp_path / "log", schema=schema, split="0.5,0.25,0.25", rows_per_shard=20_000, row_group_rows=4096)
    train, test = (read(tmp_path / "d", split) for split in ("train", "test"))
    id_N, y_N, weight_N = (train[name].to_numpy().astype(np.float64) for name in (FEATURE[kind], "label", "@weight"))
    assert len(train) < 5_000
    rate = sum(CHANCES.values()) / 3
    # A kept negative has variance (1 / share - 1) of its weight; four deviations of some 1,800 negatives, and of 1,200 clicks.
    assert (weight_N @ y_N) / weight_N.sum() == pytest.approx(rate, rel=4 * math.sqrt(1 / 1200 + 1 / 1800))
    assert load_manifest(str(tmp_path / "d")).base_rate("train") == pytest.approx((weight_N @ y_N) / weight_N.sum())
    ids = tokens_of(tmp_path / "d", FEATURE[kind])
    truth_of = {number: CHANCES[f"{token:x}" if kind == "criteo" else token.decode()] for token, number in ids.items()}
    fitted = {one: (weight_N * y_N)[id_N == one].sum() / weight_N[id_N == one].sum() for one in truth_of}
    own_N = test["@weight"].to_numpy().astype(np.float64)
    clicks = own_N @ test["label"].to_numpy()
    assert own_N @ [fitted[one] for one in test[FEATURE[kind]].to_pylist()] / clicks == pytest.approx(1, abs=0.2)
    assert own_N @ [y_N[id_N == one].mean() for one in test[FEATURE[kind]].to_pylist()] / clicks > 3
    truth_N = np.array([truth_of[one] for one in id_N])
    loss_N = -(y_N * np.log(truth_N) + (1 - y_N) * np.log(1 - truth_N))
    entropy = sum(-p * math.log(p) - (1 - p) * math.log(1 - p) for p in CHANCES.values()) / 3
    assert (weight_N @ loss_N) / weight_N.sum() == pytest.approx(entropy, rel=0.1)


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5])
def test_a_share_that_is_none_is_refused(days, tmp_path, share):
    with pytest.raises(UserError, match="--negatives"):
        run(days, tmp_path / "a", negatives=share)
    with pytest.raises(UserError, match="negatives"):
        parse_schema({"label": "y", "categorical": ["a"], "negatives": share}, "s")
