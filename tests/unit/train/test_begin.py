"""Whether a data set's ids go on from those that a model was trained with."""

import pytest

from dmoe.data.dataset.manifest import Manifest
from dmoe.data.preprocess import Options, preprocess
from dmoe.errors import UserError
from dmoe.testing.synthesize import synthesize
from dmoe.train.run.warm_start import check_grown

Made = dict[str, tuple[Manifest, str]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("days")
    for day in (0, 1):
        synthesize(str(folder / f"day_{day}.tsv"), 1500, seed=20 + day, scale=0.002)
    out: Made = {}

    def make(name: str, day: int, **options: object) -> None:
        given = Options([str(folder / f"day_{day}.tsv")], str(folder / name), split="1,0,0", min_count=3, workers=1, **options)  # type: ignore[arg-type]
        out[name] = preprocess(given).manifest, str(folder / name)

    make("old", 0)
    make("grown", 1, vocabulary=str(folder / "old"), new_tokens="append")
    make("later", 0, vocabulary=str(folder / "grown"), new_tokens="append")
    make("hashed", 0, ids="hash", hash_size="300")
    make("hashed_more", 0, ids="hash", hash_size="400")
    (folder / "both.tsv").write_bytes(b"".join((folder / f"day_{day}.tsv").read_bytes() for day in (1, 0)))
    unrelated = Options([str(folder / "both.tsv")], str(folder / "unrelated"), split="1,0,0", min_count=1, workers=1)
    out["unrelated"] = preprocess(unrelated).manifest, unrelated.output
    return out


def message(made: Made, old: str, new: str) -> str:
    manifest, folder = made[new]
    try:
        check_grown(made[old][0], manifest, folder, [one.name for one in manifest.categorical])
    except UserError as error:
        return str(error)
    return ""


def test_appended_ids_go_on_from_every_data_set_before(made):
    assert made["grown"][0].categorical[-1].cardinality > made["old"][0].categorical[-1].cardinality
    for old, new in (("old", "old"), ("old", "grown"), ("grown", "later"), ("old", "later"), ("hashed", "hashed")):
        assert message(made, old, new) == ""


def test_ids_that_mean_other_tokens_are_refused_though_the_tables_only_grow(made):
    assert all(a.cardinality <= b.cardinality for a, b in zip(made["old"][0].categorical, made["unrelated"][0].categorical, strict=True))
    assert "its ids are not those that the model was trained with" in message(made, "old", "unrelated")
    assert "has hashed ids, which another --hash-size changes all" in message(made, "hashed", "hashed_more")


def test_fewer_ids_or_other_columns_are_refused(made):
    assert "tables can grow but not shrink" in message(made, "grown", "old")
    manifest, folder = made["old"]
    other = manifest.model_copy(update={"dense": manifest.dense[::-1]})
    with pytest.raises(UserError, match="numeric feature I13 stands where the model was trained with I1"):
        check_grown(manifest, other, folder, [one.name for one in other.categorical])
