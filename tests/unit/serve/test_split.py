"""Who is in which arm: checked against the definition in plain Python, and by what must hold of any split."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as some

from dmoe.cli.main import main
from dmoe.errors import UserError
from dmoe.serve.ab.split import BUCKETS, Assigner, bucket_owners, buckets_of, read_split

TREE: dict[str, Any] = {
    "test": "ranker",
    "salt": "ranker-1",
    "unit": {"column": "user"},
    "arms": {"control": {"scorer": "a", "share": 0.5}, "new": {"scorer": "b", "share": 0.5}},
    "control": "control",
    "exposures": {"folder": "exposures"},
}
MASK = 2**64 - 1


def written(folder: Path, **changes: Any) -> str:
    path = folder / "split.yaml"
    path.write_text(yaml.safe_dump(TREE | changes))
    return str(path)


def mixed(x: int) -> int:
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & MASK
    return x ^ x >> 31


def hashed(text: str) -> int:
    x = 0xCBF29CE484222325
    for byte in text.encode():
        x = (x ^ byte) * 0x100000001B3 & MASK
    return mixed(x)


@settings(max_examples=100, deadline=None)
@given(some.text(max_size=20), some.lists(some.text(max_size=30), min_size=1, max_size=5))
def test_a_bucket_is_what_its_definition_says(salt, units):
    assert buckets_of(salt, units).tolist() == [mixed(hashed(unit) ^ hashed(salt)) % 10_000 for unit in units]


def test_units_are_spread_evenly_and_independently_of_another_salt():
    units = [f"user-{n}" for n in range(200_000)]
    one, other = buckets_of("a", units), buckets_of("b", units)
    table = np.zeros((10, 10))
    np.add.at(table, (one // 1000, other // 1000), 1)
    # Chi-squared of 99 degrees; above 149 by chance once in a thousand.
    assert ((table - 2000) ** 2 / 2000).sum() < 149


@settings(max_examples=200, deadline=None)
@given(some.integers(1, 6), some.data())
def test_an_arm_has_its_share_and_no_unit_moves_as_arms_grow(arms, data):
    def shares(most: list[int]) -> list[int]:
        return [data.draw(some.integers(0, one)) for one in most]

    if arms == 2:
        first = data.draw(some.integers(0, BUCKETS))
        large = [first, data.draw(some.integers(0, BUCKETS - first))]
    else:
        large = shares([BUCKETS // arms] * arms)
    small = shares(large)
    before, after = bucket_owners(small), bucket_owners(large)
    for owner, counts in ((before, small), (after, large)):
        assert [int((owner == arm).sum()) for arm in range(arms)] == counts
    assert (after[before >= 0] == before[before >= 0]).all()


def test_arms_fill_up_to_all_buckets():
    owner = bucket_owners([9000, 500, 500])
    assert [int((owner == arm).sum()) for arm in (-1, 0, 1, 2)] == [0, 9000, 500, 500]


def test_paths_are_beside_the_file(tmp_path):
    split = read_split(written(tmp_path, shadow={"scorer": "/scorers/c"}), "")
    assert split.arms["new"].scorer == f"{tmp_path}/b"
    assert split.shadow
    assert split.shadow.scorer == "/scorers/c"
    assert split.exposures.folder == f"{tmp_path}/exposures"


WRONG = [
    ({"control": "old"}, "control", "old"),
    ({"arms": {"control": {"scorer": "a", "share": 0.7}, "new": {"scorer": "b", "share": 0.4}}}, "arms", "1.1"),
    ({"arms": {"control": {"scorer": "a", "share": 0.33333}}}, "arms.control.share", "0.33333"),
    ({"arms": {"con trol": {"scorer": "a", "share": 0.3}}}, "arms.con trol", "con trol"),
    ({"unit": {"column": "user", "header": "X-User"}}, "unit", "one of"),
    ({"unit": {}}, "unit", "one of"),
    ({"shaddow": {"scorer": "a"}}, "shaddow", "did you mean 'shadow'"),
    ({"exposures": {"folder": "e", "rows": 0}}, "exposures.rows", "0"),
    ({"missing_unit": "guess"}, "missing_unit", "guess"),
]


@pytest.mark.parametrize(("changes", "field", "named"), WRONG)
def test_a_wrong_split_names_its_field(tmp_path, changes, field, named):
    with pytest.raises(UserError) as refused:
        read_split(written(tmp_path, **changes), "")
    assert f"split.yaml: {field}" in str(refused.value)
    assert named in str(refused.value)


def test_the_command_assigns_and_tells_what_a_change_moves(tmp_path, capsys):
    path = written(tmp_path)
    units = [f"u{n}" for n in range(50)]
    assert main(["ab", "assign", "--split", path, "--unit", *units]) == 0
    arms = Assigner(read_split(path, "")).arms_of(units)
    assert capsys.readouterr().out.splitlines() == [f"{arm} {unit}" for unit, arm in zip(units, arms, strict=True)]
    assert set(arms) == {"control", "new"}
    smaller = tmp_path / "smaller.yaml"
    smaller.write_text(yaml.safe_dump(TREE | {"arms": {name: arm | {"share": 0.1} for name, arm in TREE["arms"].items()}}))
    assert main(["ab", "assign", "--split", path, "--before", str(smaller)]) == 0
    assert main(["ab", "assign", "--split", str(smaller), "--before", path]) == 1
    assert "80.00%" in capsys.readouterr().out


def test_a_mistake_is_one_line_and_exit_code_2(tmp_path):
    for words in (["ab", "assign", "--split", "none", "--unit", "a"], ["serve", "--split", written(tmp_path, salt="")]):
        done = subprocess.run([sys.executable, "-m", "dmoe", *words], capture_output=True, text=True, timeout=1000)
        assert done.returncode == 2
        (line,) = done.stderr.strip().splitlines()
        assert line.startswith(f"dmoe {' '.join(words[: 1 + (words[0] == 'ab')])}: ")
