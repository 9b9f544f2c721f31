"""Crosses: the tokens of two or more columns as one feature."""

import math
from collections import Counter
from datetime import datetime
from itertools import product
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dmoe.data.dataset.compatibility import check_compatible, inputs_of
from dmoe.data.dataset.manifest import load_manifest
from dmoe.data.prepare.kept import load_kept
from dmoe.data.prepare.schema import parse_schema
from dmoe.data.prepare.tokens.coded_column import Coded
from dmoe.data.prepare.tokens.crosses import crossed
from dmoe.errors import UserError
from dmoe.serve.encoding.row_encoder import RowEncoder
from tests.unit.data.every_schema import CROSSES, Days, flat, kind_of, random_splits, raw_rows, read, run, tokens_of
from tests.unit.data.log.logs import TREE, make, read_split, schema
from tests.unit.data.reference import bucket
from tests.unit.data.test_every_schema import hash_of


def text_of(days: Days, row: dict[str, str], part: str) -> str | None:
    """The token of a part as text; None where the row has none."""
    kind = kind_of(days)
    if part in ("hour", "weekday", "is_weekend"):
        column, form = ("hour", "%y%m%d%H") if kind == "avazu" else ("at", "%Y-%m-%d %H:%M:%S")
        when = datetime.strptime(row[column], form)
        return {"hour": str(when.hour), "weekday": when.strftime("%w"), "is_weekend": str(int(when.weekday() > 4))}[part]
    if part == "bucket":
        return str(1 + math.floor(math.log2(int(row["age"]))))
    text = row[part.removesuffix("_bucket")]
    if text == "":
        return None
    if part.endswith("_bucket"):
        return str(bucket(int(text)))
    return f"{int(text, 16):08x}" if kind == "criteo" else text


def token_of(days: Days, row: dict[str, str], parts: tuple[str, ...]) -> bytes | None:
    texts = [text_of(days, row, part) for part in parts]
    return None if None in texts else "|".join(text.replace("\\", "\\\\").replace("|", "\\|") for text in texts).encode()


def test_a_cross_is_the_feature_of_its_rows_tokens(days, tmp_path):
    run(days, tmp_path / "a", max_ids=30)
    run(days, tmp_path / "hashed", ids="hash", hash_size="500")
    rows = raw_rows(days)
    splits = random_splits(len(rows))
    for name, parts in CROSSES[kind_of(days)].items():
        found = [token_of(days, row, parts) for row in rows]
        counts = Counter(token for token, split in zip(found, splits, strict=True) if split == 0 and token is not None)
        kept = sorted((token for token in counts if counts[token] >= 3), key=lambda token: (-counts[token], token))[:30]
        ids = {token: 2 + place for place, token in enumerate(kept)} | {None: 0}
        assert len(kept) > 3, name
        assert tokens_of(tmp_path / "a", name) == {token: ids[token] for token in kept}
        for number, split in enumerate(("train", "validation", "test")):
            here = [token for token, one in zip(found, splits, strict=True) if one == number]
            assert flat(read(tmp_path / "a", split)[name]) == [ids.get(token, 1) for token in here]
            hashed = [0 if token is None else 2 + hash_of(token) % 498 for token in here]
            assert flat(read(tmp_path / "hashed", split)[name]) == hashed


def test_a_scored_log_has_the_ids_of_the_trained_one(days, tmp_path):
    run(days, tmp_path / "a", 0, 1, split="1,0,0")
    run(days, tmp_path / "b", 1, vocabulary=str(tmp_path / "a"), scoring=True)
    for name in CROSSES[kind_of(days)]:
        assert flat(read(tmp_path / "b", "score")[name]) == flat(read(tmp_path / "a", "train")[name])[500:]


def test_rows_in_memory_have_the_crosses_of_their_log_whatever_else_is_asked_for(days, tmp_path):
    names = list(CROSSES[kind_of(days)])
    key = "user" if kind_of(days) == "any" else days[0].label.column
    run(days, tmp_path / "a", 0, 1, split="1,0,0", split_by="key", split_key=key)
    encoder = RowEncoder(load_kept(str(tmp_path / "a")), [], names)
    rows = [{name: row[name] or None for name in encoder.columns} for row in raw_rows(days, 1)]
    trained = read(tmp_path / "a", "train").slice(500)
    assert encoder.encode(rows).ids_BF.T.tolist() == [flat(trained[name]) for name in names]


def test_criteos_crosses_are_read_by_the_fast_parser(days):
    assert (days[0].typed_columns is not None) == (kind_of(days) == "criteo")


def test_a_model_refuses_data_whose_cross_is_another(days, tmp_path):
    (name, parts), *_ = CROSSES[kind_of(days)].items()
    model = run(days, tmp_path / "a", ids="hash", hash_size="500").manifest
    others = [one.model_copy(update={"cross": [*reversed(parts)]}) if one.name == name else one for one in days[0].categorical]
    other = run(days, tmp_path / "b", ids="hash", hash_size="500", schema=days[0].model_copy(update={"categorical": others}))
    with pytest.raises(UserError, match=f"feature {name} .* x {parts[0]} ") as error:
        check_compatible(inputs_of(model), inputs_of(other.manifest), str(tmp_path / "b"))
    assert str(tmp_path / "b") in str(error.value)
    again = load_manifest(str(tmp_path / "a"))
    assert [one.name.replace("who", "user") for one in again.categorical[-3].identity.cross] == list(parts)
    check_compatible(inputs_of(again), inputs_of(model), str(tmp_path / "a"))


def test_no_two_rows_of_other_tokens_have_one_token():
    texts = [b"a", b"bc", b"ab", b"c", b"|", b"\\", b"a|", b"|b", b"\\|", b"\\\\"]
    pairs = list(product(range(len(texts)), repeat=2))
    columns = [Coded(pa.array([pair[at] + 1 for pair in pairs]).to_numpy(), pa.array(texts, pa.large_binary())) for at in (0, 1)]
    found = crossed(columns)
    assert len(set(found.values.to_pylist())) == len(pairs)
    assert sorted(found.codes.tolist()) == list(range(1, len(pairs) + 1))


def test_a_parquet_log_has_the_crosses_of_its_text(tmp_path):
    texts: dict[str, list[Any]] = {"y": [0, 1] * 40, "a": ["x", "y|", None, "x"] * 20, "n": [7, -1, 3, 7] * 20}
    pq.write_table(pa.table(texts), tmp_path / "log.parquet")
    tree = {"format": "parquet", "label": "y", "categorical": ["a", {"name": "ax", "cross": ["a", "n"]}]}
    folder = make(tmp_path / "d", tmp_path / "log.parquet", schema=parse_schema(tree, "s"), split="1,0,0")
    assert tokens_of(folder, "ax") == {b"x|7": 2, b"y\\||-1": 3}
    assert [row["ax"] for row in read_split(folder, "train")] == [2, 3, 0, 2] * 20


@pytest.mark.parametrize(
    ("cross", "named"),
    [
        (["site", "tags"], "'tags'"),
        (["site", "age"], "'age'"),
        (["site", "clicked"], "'clicked'"),
        (["site", "site"], "'site'"),
        (["site", "y"], "'y'"),
    ],
)
def test_parts_that_cannot_be_crossed_are_named(cross, named):
    with pytest.raises(UserError, match=named) as error:
        schema(categorical=[*TREE["categorical"], {"name": "x", "cross": cross}, {"name": "y", "cross": ["site", "who"]}])
    assert "'x'" in str(error.value)


@pytest.mark.parametrize("also", [{"type": "hex"}, {"column": "site"}, {"bucket": "log2"}, {"pooling": "sum"}])
def test_a_cross_has_nothing_of_a_column(also):
    with pytest.raises(UserError, match="'x'"):
        schema(categorical=["site", {"name": "x", "cross": ["site", "user"], **also}])


def test_a_column_that_the_log_lacks_is_named(tmp_path):
    (tmp_path / "log").write_text("y,a\n1,b\n")
    tree = {"label": "y", "categorical": ["a", {"name": "x", "cross": ["a", "gone"]}]}
    with pytest.raises(UserError, match="'gone'"):
        make(tmp_path / "d", tmp_path / "log", schema=parse_schema(tree, "s"))
