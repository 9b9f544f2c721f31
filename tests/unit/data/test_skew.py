"""Skew between training and later data: one line for a feature that the model hardly knows any more, none for what days differ by."""

from pathlib import Path

import pytest

from dmoe.data.dataset.manifest import CategoricalFeature, DenseFeature, Manifest, Split
from dmoe.data.log.options import LogOptions
from dmoe.data.log.preprocess import preprocess_log
from dmoe.data.log.schema import parse_schema
from dmoe.data.preprocess import Options, preprocess
from dmoe.data.skew import far_above, shares_of, skew_lines
from dmoe.data.summary import summarize
from dmoe.testing.synthesize import synthesize


@pytest.mark.parametrize(
    ("share", "trained", "values", "reported"),
    [
        (1.0, 0.0, 1000, True),
        (1.0, 0.6, 1000, True),
        (0.3, 0.01, 1000, True),
        (0.3, 0.2, 1e9, False),
        (0.55, 0.4, 1e9, False),
        (0.09, 0.0, 1e9, False),
        (1.0, 0.95, 1e9, False),
        (0.05, 0.3, 1e9, False),
        (1.0, 0.0, 5, False),
        (1.0, 0.0, 30, True),
        (0.3, 0.05, 30, False),
        (0.5, 0.0, 0, False),
    ],
)
def test_a_share_is_far_above_where_neither_days_nor_chance_explain_it(share: float, trained: float, values: float, reported: bool):
    assert far_above(share, trained, values) == reported


def manifest_of(rows: int, rare: float, missing: float, pooling: str = "none", mean_ids: float = 1.0) -> Manifest:
    feature = CategoricalFeature(
        name="tags", kind="token", cardinality=5, missing_share=missing, rare_share=rare, pooling=pooling, mean_ids=mean_ids
    )
    dense = DenseFeature(name="price", transform="none", missing_share=missing)
    return Manifest(dataset="t", dense=(dense,), categorical=(feature,), splits={"test": Split(rows=0, positives=0, shards=())}).model_copy(
        update={"splits": {"test": Split.model_construct(rows=rows, positives=0, shards=(), labelled=True)}}
    )


def test_a_line_names_the_feature_and_both_shares():
    trained = shares_of(manifest_of(1000, 0.021, 0.0))
    assert skew_lines(trained, manifest_of(1000, 0.03, 0.01), "data/b") == []
    (line,) = skew_lines(trained, manifest_of(1000, 1.0, 0.0), "data/b")
    assert line.startswith("data/b: tags: 100.0% of its values are unknown (2.1% in the training data): ")
    lines = skew_lines(trained, manifest_of(1000, 0.4, 0.5), "data/b")
    assert [line.split(": ")[1] for line in lines] == ["price", "tags"]
    assert "40.0% of its values are unknown" in lines[1]
    assert "50.0% of its values are missing" in lines[1]
    assert "\n" not in "".join(lines)
    assert skew_lines({"other": (0.0, 0.0)}, manifest_of(1000, 0.5, 0.5), "data/b") == []
    few = manifest_of(12, 0.6, 0.0, "sum", 1.0), manifest_of(12, 0.6, 0.0, "sum", 8.0)
    assert [len(skew_lines(trained, one, "data/b")) for one in few] == [0, 1]


TREE = {"label": "click", "dense": ["price"], "categorical": ["user", "site"]}


def write(path: Path, user: str, price: str = "1.5", rows: int = 200) -> str:
    lines = [f"{number % 2},{user.format(number * 7 % 11)},s{number % 3},{price}" for number in range(rows)]
    path.write_text("click,user,site,price\n" + "\n".join(lines) + "\n")
    return str(path)


@pytest.mark.parametrize(
    ("user", "price", "named"), [("id-{}", "1.5", ["user"]), ("u{}", "", ["price"]), ("u{}", "2.5", []), ("", "", ["price", "user"])]
)
def test_preparing_by_a_kept_vocabulary_tells_it(tmp_path: Path, user: str, price: str, named: list[str]):
    schema, first = parse_schema(TREE, "schema.yaml"), str(tmp_path / "a")
    options = {"schema": schema, "where": "schema.yaml", "workers": 1, "min_count": 2}
    made = preprocess_log(LogOptions([write(tmp_path / "a.csv", "u{}")], first, **options))
    assert "training data" not in summarize(made, first)
    later = LogOptions([write(tmp_path / "b.csv", user, price)], str(tmp_path / "b"), vocabulary=first, scoring=True, **options)
    lines = [line for line in summarize(preprocess_log(later), "out", first).splitlines() if "training data" in line]
    assert [line.strip().split(": ")[:2] for line in lines] == [["out", name] for name in named]
    again = [line for line in summarize(preprocess_log(later), "out", first).splitlines() if "training data" in line]
    assert again == lines


def test_criteos_columns_are_told_too(tmp_path: Path):
    """The same rows, but for C1's tokens, which are others, and I3, which is gone."""
    synthesize(str(tmp_path / "0.tsv"), 400, seed=0, scale=0.0005)
    rows = [line.split("\t") for line in (tmp_path / "0.tsv").read_text().splitlines()]
    for number, row in enumerate(rows):
        row[3], row[14] = "", f"f{number:07x}"
    (tmp_path / "1.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    preprocess(Options([str(tmp_path / "0.tsv")], str(tmp_path / "a"), workers=1, min_count=2))
    result = preprocess(Options([str(tmp_path / "1.tsv")], str(tmp_path / "b"), workers=1, vocabulary=str(tmp_path / "a"), scoring=True))
    lines = [line for line in summarize(result, "out", str(tmp_path / "a")).splitlines() if "training data" in line]
    assert [line.split(": ")[1] for line in lines] == ["I3", "C1", "I3_bucket"]
