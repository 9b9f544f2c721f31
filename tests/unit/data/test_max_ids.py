"""`max_ids`: the most frequent tokens of a feature have ids of their own, the others are rare."""

from collections import Counter

import pytest

from dmoe.data.prepare.options import Options, check_options
from dmoe.errors import UserError
from tests.unit.data.every_schema import Days, flat, kind_of, random_splits, raw_rows, read, run, tokens_of

PLAIN = {"criteo": "C3", "avazu": "site_id", "any": "site"}
"""A feature that has a column to itself."""


def token_of(days: Days, text: str) -> int | bytes | None:
    return None if text == "" else int(text, 16) if kind_of(days) == "criteo" else text.encode()


def test_the_most_frequent_tokens_keep_their_ids_and_the_others_are_rare(days, tmp_path):
    known = days[0]
    own = [one.model_copy(update={"max_ids": 4}) if one.name == PLAIN[kind_of(days)] else one for one in known.categorical]
    run(days, tmp_path / "whole", min_count=2)
    run(days, tmp_path / "cut", min_count=2, max_ids=7, schema=known.model_copy(update={"categorical": own}))
    whole, cut = read(tmp_path / "whole", "train"), read(tmp_path / "cut", "train")
    for feature in known.categorical:
        most = 4 if feature.name == PLAIN[kind_of(days)] else 7
        before, after = tokens_of(tmp_path / "whole", feature.name), tokens_of(tmp_path / "cut", feature.name)
        assert after == {token: number for token, number in before.items() if number < 2 + most}
        assert flat(cut[feature.name]) == [number if number < 2 + most else 1 for number in flat(whole[feature.name])]
    rows = raw_rows(days)
    train = [row for row, split in zip(rows, random_splits(len(rows)), strict=True) if split == 0]
    counts = Counter(token for row in train if (token := token_of(days, row[PLAIN[kind_of(days)]])) is not None)
    ordered = sorted((token for token in counts if counts[token] >= 2), key=lambda token: (-counts[token], token))
    assert list(tokens_of(tmp_path / "cut", PLAIN[kind_of(days)])) == ordered[:4]


def test_appended_tokens_end_where_max_ids_does_and_kept_ones_stay(days, tmp_path):
    name = PLAIN[kind_of(days)]
    run(days, tmp_path / "a", 0, split="1,0,0")
    run(days, tmp_path / "all", 1, split="1,0,0", min_count=1, vocabulary=str(tmp_path / "a"), new_tokens="append")
    old, every = tokens_of(tmp_path / "a", name), tokens_of(tmp_path / "all", name)
    limit = len(old) + 1 if len(every) > len(old) else len(old)
    for most, left in [(limit, limit), (1, len(old))]:
        out = tmp_path / str(most)
        run(days, out, 1, split="1,0,0", min_count=1, max_ids=most, vocabulary=str(tmp_path / "a"), new_tokens="append")
        assert tokens_of(out, name) == {token: number for token, number in every.items() if number < 2 + left}


def test_the_limit_decides_the_data_set(days, tmp_path):
    first = run(days, tmp_path / "a", max_ids=7).manifest.made_by
    assert first["max_ids"] == 7
    assert first["fingerprint"] != run(days, tmp_path / "b", max_ids=8).manifest.made_by["fingerprint"]
    with pytest.raises(UserError, match=r"--max-ids"):
        check_options(Options(["log"], "out", schema="criteo", max_ids=0))
