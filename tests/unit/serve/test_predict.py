"""A scorer reads raw rows by what it carries: its scores are those of the prepared log, and the data set can be gone."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dmoe.data.prepare.options import Options
from dmoe.data.prepare.pipeline import preprocess
from dmoe.errors import UserError
from dmoe.serve.export.export import export
from dmoe.serve.score_dataset import probabilities, score_split
from dmoe.serve.scorer import Scorer
from dmoe.testing.small_scorer import small_scorer, write_log


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    small_scorer(str(folder))
    return folder


def test_raw_rows_score_as_their_prepared_log_does_without_the_data_set(place, tmp_path):
    write_log(tmp_path / "later.csv", 300, seed=5)
    preprocess(Options([str(tmp_path / "later.csv")], str(tmp_path / "made"), vocabulary=str(place / "data"), scoring=True, workers=1))
    scorer = Scorer(str(place / "scorer"))
    expected = np.concatenate([logit_B for logit_B, _ in score_split(scorer, str(tmp_path / "made"), "score", 128)])
    shutil.copytree(place / "scorer", tmp_path / "elsewhere")
    moved = Scorer(str(tmp_path / "elsewhere"))
    with open(tmp_path / "later.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    np.testing.assert_allclose(moved.predict(rows), probabilities(expected), rtol=1e-5)
    for row in rows:
        row["price"] = float(row["price"]) if row["price"] else None
        row["tags"] = row["tags"].split("|") if row["tags"] else []
        row["extra"] = {"not": "read"}
    np.testing.assert_allclose(moved.predict(rows), probabilities(expected), rtol=1e-5)
    table = pa.Table.from_pylist([{name: row[name] for name in ("site", "user", "price", "tags")} for row in rows])
    np.testing.assert_allclose(moved.predict(table), probabilities(expected), rtol=1e-5)
    assert moved.predict([]).shape == (0,)
    assert moved.predict([{}, {"price": None}]).shape == (2,)
    with pytest.raises(UserError, match="'price'"):
        moved.predict([{"Site": "s1"}, {}])


def test_an_export_where_the_data_is_gone_takes_ids_and_says_so(place, tmp_path, capsys):
    shutil.copytree(place / "data", tmp_path / "data")
    run = shutil.copytree(place / "run", tmp_path / "run")
    config = (run / "config.yaml").read_text().replace(str(place / "data"), str(tmp_path / "data"))
    (run / "config.yaml").write_text(config)
    (tmp_path / "data" / "vocabulary" / "user.parquet").unlink()
    export(str(run), str(tmp_path / "scorer"))
    assert "user.parquet: no such file" in capsys.readouterr().err
    assert not any((tmp_path / "scorer" / "inputs").rglob("*.*"))
    with pytest.raises(UserError, match="ids"):
        Scorer(str(tmp_path / "scorer")).predict([{"site": "s1"}])


def test_another_vocabulary_is_not_carried(place, tmp_path, capsys):
    data = shutil.copytree(place / "data", tmp_path / "data")
    run = shutil.copytree(place / "run", tmp_path / "run")
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace(str(place / "data"), str(data)))
    write_log(tmp_path / "other.csv", 1000, seed=9)
    preprocess(Options([str(tmp_path / "other.csv")], str(tmp_path / "other"), schema=str(place / "schema.yaml"), min_count=2, workers=1))
    shutil.rmtree(data / "vocabulary")
    shutil.copytree(tmp_path / "other" / "vocabulary", data / "vocabulary")
    export(str(run), str(tmp_path / "scorer"))
    assert "takes ids, not raw rows" in capsys.readouterr().err
    assert not Scorer(str(tmp_path / "scorer")).about.reads_raw_rows


def test_a_damaged_or_missing_part_is_named(place, tmp_path):
    scorer = shutil.copytree(place / "scorer", tmp_path / "scorer")
    vocabulary = scorer / "inputs" / "vocabulary" / "user.parquet"
    vocabulary.write_bytes(vocabulary.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"user\.parquet: damaged"):
        Scorer(str(scorer))
    vocabulary.unlink()
    with pytest.raises(UserError, match=r"user\.parquet: missing"):
        Scorer(str(scorer))


@pytest.mark.parametrize("name", ["inputs/../../x.parquet", "inputs/vocabulary/../x.parquet", "other.bin"])
def test_no_other_file_can_be_named(place, tmp_path, name):
    scorer = shutil.copytree(place / "scorer", tmp_path / "scorer")
    about = json.loads((scorer / "scorer.json").read_text())
    about["files"][name] = "0" * 64
    (scorer / "scorer.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match=r"scorer\.json: files"):
        Scorer(str(scorer))
