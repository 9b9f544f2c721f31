"""The Polars pipelines of tools.bench make the data set that dmoe makes of the same log, so that their times can be compared."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from dmoe.data.prepare.avazu_protocols import avazu_schema
from dmoe.data.prepare.options import Options
from dmoe.data.prepare.pipeline import preprocess
from dmoe.data.prepare.schema import load_schema
from tools.bench import logs, polars_logs

pytest.importorskip("polars")


def tokens(path: Path, token: str, number: str) -> dict[int, str]:
    table = pq.read_table(path)
    texts = [one.decode() if isinstance(one, bytes) else str(one) for one in table[token].to_pylist()]
    return {0: "missing", 1: "rare"} | dict(zip(table[number].to_pylist(), texts, strict=True))


def named(ids: list[Any], token_of: dict[int, str]) -> list[Any]:
    return [[token_of[one] for one in row] if isinstance(row, list) else token_of[row] for row in ids]


@pytest.mark.parametrize("ids", ["join", "map"])
@pytest.mark.parametrize("kind", ["avazu", "quoted", "parquet"])
def test_the_polars_pipelines_make_dmoes_ids_and_numbers(tmp_path: Path, kind: str, ids: str):
    log, made, ours = tmp_path / "log", tmp_path / "polars", tmp_path / "dmoe"
    logs.make(kind, 3_000, 1, log)
    made.mkdir()
    assert polars_logs.run(kind, ids, log, made) == 3_000  # type: ignore[arg-type]
    (tmp_path / "schema.yaml").write_text(json.dumps(logs.QUOTED | ({"format": "parquet"} if kind == "parquet" else {})))
    schema = avazu_schema() if kind == "avazu" else load_schema(str(tmp_path / "schema.yaml"))
    settings = {"split": "1,0,0", "min_count": polars_logs.LOGS[kind], "row_group_rows": polars_logs.ROW_GROUP_ROWS, "workers": 1}
    preprocess(Options([str(log)], str(ours), schema=schema, where="schema", **settings))
    theirs, (shard,) = pq.read_table(made / "data.parquet"), (ours / "train").iterdir()
    table = pq.read_table(shard).rename_columns({"label": "click"})
    assert set(table.column_names) == set(theirs.column_names)
    for name in table.column_names:
        mine, other = table[name].to_pylist(), theirs[name].to_pylist()
        if name in polars_logs.DENSE:
            assert other == pytest.approx(mine, rel=1e-5, abs=1e-6), name
        elif name in ("click", "@weight"):
            assert other == mine
        else:
            # Of equal counts, dmoe orders tokens as texts, Polars the hours and buckets as numbers.
            token_of = tokens(made / f"{name}.parquet", name, f"{name}_id"), tokens(ours / "vocabulary" / f"{name}.parquet", "token", "id")
            assert named(other, token_of[0]) == named(mine, token_of[1]), name
    assert pq.read_metadata(made / "data.parquet").num_row_groups == 1
