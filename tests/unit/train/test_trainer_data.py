"""A Trainer takes the batches of a data set only where their ids mean what its model's do."""

import pytest

import dmoe
from dmoe.data.prepare.options import Options
from dmoe.data.prepare.pipeline import preprocess
from dmoe.testing.small_run import small_config

SCHEMA = "label: click\ncategorical: [site, user]\n"


def made(folder, name: str, first: int) -> dmoe.Dataset:
    """A data set of sites whose popularity begins at another one: the same tokens get other ids."""
    # Site number n has 7 - n of 28 rows, counted from the first one on.
    places = [place for place in range(7) for _ in range(7 - place)]
    rows = [f"{row % 2},s{(places[row % 28] + first) % 7},u{row % 5}" for row in range(400)]
    (folder / f"{name}.csv").write_text("click,site,user\n" + "\n".join(rows) + "\n")
    (folder / "schema.yaml").write_text(SCHEMA)
    preprocess(Options([str(folder / f"{name}.csv")], str(folder / name), schema=str(folder / "schema.yaml"), min_count=1, workers=1))
    return dmoe.Dataset(str(folder / name))


def test_batches_of_another_vocabulary_are_refused(tmp_path):
    one, other = made(tmp_path, "one", 0), made(tmp_path, "other", 3)
    cardinalities = [[feature.cardinality for feature in data.manifest.categorical] for data in (one, other)]
    assert cardinalities[0] == cardinalities[1], "the sizes alone do not tell them apart"
    trainer = dmoe.Trainer(small_config(one.path), one.manifest)
    train = one.batches("train", batch_size=64)
    steps = len(train)
    assert len(list(trainer.fit(train))) == steps
    assert "auc" in trainer.evaluate(one.batches("validation", batch_size=64))
    for refused in (lambda: list(trainer.fit(other.batches("train", batch_size=64))), lambda: trainer.evaluate(other.batches("test", 64))):
        with pytest.raises(dmoe.UserError, match="site"):
            refused()
    with pytest.raises(dmoe.UserError, match="user"):
        list(trainer.fit(one.batches("train", batch_size=64, features=["user", "site"])))
