"""Tokens that are whole numbers: one id for a number, however it is written."""

import re
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmoe.data.dataset.manifest import load_manifest
from dmoe.data.prepare.schema import parse_schema
from dmoe.data.prepare.tokens.token_ids import TokenIds
from dmoe.data.prepare.tokens.whole_numbers import LARGEST, whole_numbers
from tests.unit.data.log.logs import data_bytes, make, read_split

NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d*([eE][+-]?\d{1,3})?|[eE][+-]\d{1,3})?")


def reference(token: str) -> int | str | None:
    """The whole number that a token is, 'large' where it is above 2^53, None where it is none."""
    if not NUMBER.fullmatch(token) or len(token) > 64:
        return None
    value = Decimal(token)
    if value != value.to_integral_value():
        return None
    return int(value) if abs(value) <= LARGEST else "large"


def of(tokens: list[str]) -> list[int | str | None]:
    found = whole_numbers(pa.array([token.encode() for token in tokens], pa.large_binary())).tolist()
    return [None if one != one else "large" if abs(one) == float("inf") else int(one) for one in found]


EXAMPLES = {
    "1007": 1007,
    "1007.0": 1007,
    "1007.": 1007,
    "-12.000": -12,
    "1.234e+15": 1234 * 10**12,
    "1.234E15": 1234 * 10**12,
    "9.007199254740992e+15": 2**53,
    "9007199254740993": "large",
    "1.234e+16": "large",
    "12345678901234567890123.0": "large",
    "0": 0,
    "-0.0": 0,
    "0e+5": 0,
    "1.0e-400": None,
    "99999999999999.9": None,
    "0.99999999999999999999": None,
    "999999999999999e+99": "large",
    "0.5e+1": 5,
    "1200e-2": 12,
    "1200.0e-2": 12,
    "1e+3": 1000,
    "1e3": None,
    "1.5": None,
    "007": None,
    "007.0": None,
    "+5": None,
    "": None,
    "-": None,
    ".0": None,
    "1 ": None,
    "1_0": None,
    "nan": None,
    "1.0.0": None,
    "1e+": None,
    "0x10": None,
}


@given(st.lists(st.text("0123456789.-+eE", max_size=24) | st.floats().map(repr) | st.integers().map(str), max_size=8))
def test_a_whole_number_is_what_decimal_says(tokens: list[str]):
    tokens = [*EXAMPLES, *tokens]
    assert of(tokens) == [reference(token) for token in tokens]


def test_examples_by_hand():
    assert dict(zip(EXAMPLES, of(list(EXAMPLES)), strict=True)) == EXAMPLES


@pytest.mark.parametrize(
    ("vocabulary", "token", "found"),
    [
        (["1007", "5"], "1007.0", 2),
        (["1007", "5"], "5e+0", 3),
        (["1007", "5"], "6.0", 1),
        (["1007", "5"], "1007.5", 1),
        (["1007.0", "5.0"], "5", 3),
        (["1.234e+15"], "1234000000000000", 2),
        (["9007199254740993", "7"], "9007199254740993.0", 1),
        (["9007199254740993", "7"], "7.0", 3),
        (["1007", "other"], "1007.0", 2),
        (["other", "1007.0", "68ab1e"], "1007", 3),
        (["9.0", "7", "u", "8", "8.0", "8.00"], "7.0", 3),
        (["9.0", "7", "u", "8", "8.0", "8.00"], "8.000", 1),
        (["9.0", "7", "u", "8", "8.0", "8.00"], "9", 2),
        (["1007", "1007.00"], "1007.0", 1),
        (["007"], "7.0", 1),
        (["1.5", "2"], "2.0", 3),
        (["0", "-5"], "-0", 2),
        (["0", "-5"], "-5.00", 3),
        (["0", "-5"], "-", 1),
        ([], "2.0", 1),
    ],
)
def test_a_token_is_looked_up_by_its_number(vocabulary: list[str], token: str, found: int):
    ids = TokenIds(pa.array([one.encode() for one in vocabulary], pa.large_binary()))
    tokens = pa.array([one.encode() for one in (*vocabulary, token)], pa.large_binary())
    assert ids.look_up(tokens).tolist() == [*range(2, 2 + len(vocabulary)), found]


TREE = {"label": "click", "categorical": ["user", {"name": "tags", "separator": "|", "pooling": "sum"}]}
USERS = [1000 + number * number % 37 for number in range(120)]


def write_users(path: Path, form: str, users: list[int] = USERS) -> Path:
    texts = [form.format(user) for user in users]
    path.write_text("click,user,tags\n" + "".join(f"{i % 2},{text},{text}|{texts[i // 2]}\n" for i, text in enumerate(texts)))
    return path


@pytest.mark.parametrize("form", ["{}", "{}.0", "{:.6e}"])
@pytest.mark.parametrize("later", ["{}", "{}.0", "{:.6e}"])
def test_ids_are_those_of_training_however_the_later_log_writes_them(tmp_path: Path, form: str, later: str):
    schema = parse_schema(TREE, "schema.yaml")
    data = make(tmp_path / "d", write_users(tmp_path / "a.csv", form), schema=schema, split="1,0,0")
    tokens = pq.read_table(data / "vocabulary" / "user.parquet")["token"].to_pylist()
    assert set(tokens) <= {form.format(user).encode() for user in USERS}
    scored = make(tmp_path / "s", write_users(tmp_path / "b.csv", later), schema=schema, vocabulary=str(data), scoring=True)
    assert read_split(scored, "score") == [dict(row) for row in read_split(data, "train")]
    assert load_manifest(str(scored)).categorical[0].rare_share < 0.1


def test_only_new_numbers_are_appended_and_two_writings_in_one_log_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    schema = parse_schema(TREE, "schema.yaml")
    make(tmp_path / "d", write_users(tmp_path / "a.csv", "{}"), schema=schema, split="1,0,0")
    later = write_users(tmp_path / "b.csv", "{}.0", [*USERS, 5000])
    data = make(tmp_path / "e", later, schema=schema, vocabulary=str(tmp_path / "d"), new_tokens="append", min_count=1, split="1,0,0")
    tokens = pq.read_table(data / "vocabulary" / "user.parquet")["token"].to_pylist()
    assert tokens == [*pq.read_table(tmp_path / "d" / "vocabulary" / "user.parquet")["token"].to_pylist(), b"5000.0"]
    assert "user: " not in capsys.readouterr().err
    both = tmp_path / "both.csv"
    both.write_text((tmp_path / "a.csv").read_text() + later.read_text().partition("\n")[2])
    make(tmp_path / "f", both, schema=schema, split="1,0,0")
    assert f"user: {len(set(USERS))} tokens" in capsys.readouterr().err


@pytest.mark.parametrize("new", ["rare", "append"])
def test_a_new_text_beside_numbers_changes_nothing_for_them(tmp_path: Path, new: str):
    schema = parse_schema(TREE, "schema.yaml")
    data = make(tmp_path / "d", write_users(tmp_path / "a.csv", "{}"), schema=schema, split="1,0,0")
    later = write_users(tmp_path / "b.csv", "{}.0")
    later.write_text(later.read_text() + "1,guest,guest\n" * 5)
    found = make(tmp_path / "e", later, schema=schema, vocabulary=str(data), new_tokens=new, split="1,0,0")
    users, known = [row["user"] for row in read_split(found, "train")], [row["user"] for row in read_split(data, "train")]
    assert users == known + [1 if new == "rare" else load_manifest(str(data)).categorical[0].cardinality] * 5
    later = write_users(tmp_path / "c.csv", "{:.6e}")
    again = make(tmp_path / "f", later, schema=schema, vocabulary=str(found), scoring=True)
    assert [row["user"] for row in read_split(again, "score")] == known


@pytest.mark.parametrize("kind", [pa.int64(), pa.float64(), pa.string()])
@pytest.mark.parametrize("later", [pa.int64(), pa.float64()])
def test_parquet_columns_of_other_types_have_the_ids_of_training(tmp_path: Path, kind: pa.DataType, later: pa.DataType):
    """1.234e+15 is how pyarrow writes a float64."""
    users = [1234 * 10**12 + 10**9 * (number % 7) for number in range(60)]
    tree = {"format": "parquet", "label": "click", "categorical": ["user"]}
    folders = []
    for name, dtype in (("a", kind), ("b", later)):
        values = pa.array([str(user) for user in users]) if dtype == pa.string() else pa.array(users).cast(dtype, safe=False)
        pq.write_table(pa.table({"click": [number % 2 for number in range(60)], "user": values}), tmp_path / f"{name}.parquet")
        options = {"vocabulary": str(folders[0]), "scoring": True} if folders else {"split": "1,0,0"}
        folders.append(make(tmp_path / name, tmp_path / f"{name}.parquet", schema=parse_schema(tree, "s"), **options))
    assert read_split(folders[1], "score") == read_split(folders[0], "train")
    assert {row["user"] for row in read_split(folders[1], "score")} == set(range(2, 9))


@settings(max_examples=10)
@given(st.sampled_from(["x{}", "{}.5", "0{}", "+{}"]))
def test_tokens_that_are_no_whole_numbers_keep_their_bytes(tmp_path_factory: pytest.TempPathFactory, form: str):
    folder = tmp_path_factory.mktemp("d")
    data = make(folder / "d", write_users(folder / "a.csv", form), schema=parse_schema(TREE, "s"), split="1,0,0")
    tokens = pq.read_table(data / "vocabulary" / "user.parquet")["token"].to_pylist()
    rows = [row["user"] for row in read_split(data, "train")]
    assert rows == [2 + tokens.index(text) if (text := form.format(user).encode()) in tokens else 1 for user in USERS]
    assert data_bytes(data)
