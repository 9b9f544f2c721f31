"""Whether a data set's ids and numbers mean what they meant to the model: told from the manifests, not from names and sizes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dmoe.config.sections import DataConfig
from dmoe.data.dataset.compatibility import check_compatible, inputs_of, model_inputs
from dmoe.data.dataset.earlier import with_identities
from dmoe.data.dataset.manifest import Manifest, load_manifest
from dmoe.data.prepare.pipeline import preprocess
from dmoe.errors import UserError
from dmoe.testing.synthesize import synthesize
from tests import log_files
from tests.unit.data.log.logs import make
from tests.unit.data.log.logs import schema as schema_of

SITES = ("a", "b", "c", "d")


def write_day(path: Path, order: str, rows: int = 240, price: float = 1.0) -> None:
    """A day whose sites are popular in that order; its vocabulary is as large as any other day's, and its clicks are others."""
    weights = [order[place] for place in (0, 0, 0, 0, 1, 1, 1, 2, 2, 3)]
    lines = [
        f"{number % 3 == SITES.index(order[0]) % 2:d},{weights[number % 10]},{(number % 7) * price},{'|'.join(order[: number % 5])},"
        f"2024-01-0{1 + number % 7} {number % 24:02d}:00:00"
        for number in range(rows)
    ]
    path.write_text("click,site,price,tags,at\n" + "\n".join(lines) + "\n")


TREE: dict[str, Any] = {
    "label": "click",
    "time": {"column": "at", "format": "%Y-%m-%d %H:%M:%S"},
    "weight": None,
    "group": None,
    "missing": [],
    "dense": [{"name": "price", "transform": "standardise"}],
    "categorical": [
        "site",
        {"name": "price_bucket", "column": "price", "bucket": {"edges": [1.5, 4]}},
        {"name": "tags", "separator": "|", "pooling": "mean", "max_values": 4},
        {"name": "hour", "part": "hour"},
    ],
}


def changed(**changes: Any) -> Any:
    return schema_of(**(TREE | changes))


def features(name: str, **changes: Any) -> list[Any]:
    """The categorical features of the schema, one of them changed."""
    whole = [{"name": one} if isinstance(one, str) else one for one in TREE["categorical"]]
    return [one | (changes if one["name"] == name else {}) for one in whole]


def make_day(folder: Path, log: Path, **options: Any) -> Path:
    settings = {"schema": changed(), "min_count": 1, "rows_per_shard": 100_000} | options
    return make(folder, log, **settings)


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("days")
    write_day(folder / "day1.csv", "abcd")
    write_day(folder / "day2.csv", "dcba")
    make_day(folder / "day1", folder / "day1.csv")
    make_day(folder / "day2", folder / "day2.csv")
    make_day(folder / "next", folder / "day2.csv", vocabulary=str(folder / "day1"))
    return folder


def refusal(model: Path | Manifest, data: Path | Manifest, folder: Path | None = None, **modes: bool) -> str:
    """Why the second data set is refused for a model of the first; empty where it is not."""
    trained, given = (load_manifest(str(one)) if isinstance(one, Path) else one for one in (model, data))
    where, message = str(folder or data), ""
    try:
        check_compatible(inputs_of(trained), inputs_of(given), where, **modes)
    except UserError as error:
        message = str(error)
    assert "\n" not in message
    assert message == "" or message.startswith(f"{where}/manifest.json: feature ")
    return message


def test_the_ids_of_another_day_are_refused_though_every_name_and_size_agrees(days: Path) -> None:
    one, two = (load_manifest(str(days / name)) for name in ("day1", "day2"))
    assert one.schema_hash == two.schema_hash
    message = refusal(days / "day1", days / "day2")
    assert "feature site has other tokens" in message
    assert "--vocabulary" in message
    for model, data in (("day1", "next"), ("day1", "day1"), ("next", "day1")):
        for modes in ({}, {"ordered": True}, {"ordered": True, "grown": True}):
            assert refusal(days / model, days / data, **modes) == ""


def test_a_data_set_that_was_made_again_is_the_same(days: Path, tmp_path: Path) -> None:
    """Other shards, blocks and order of sums: the moments differ by rounding at most."""
    again = make_day(tmp_path / "again", days / "day1.csv", rows_per_shard=64, block_bytes=500)
    assert refusal(days / "day1", again) == ""
    assert refusal(days / "day1", make_day(tmp_path / "shuffled", days / "day1.csv", shuffle=True)) == ""


@pytest.mark.parametrize(
    ("changes", "feature", "what"),
    [
        ({"dense": [{"name": "price", "transform": "log1p"}]}, "price", "is sign(x) * log1p"),
        ({"dense": ["price"]}, "price", "is x"),
        ({"missing": ["0.0"]}, "price", "'0.0' as missing"),
        ({"categorical": features("price_bucket", bucket={"edges": [1.5, 5]})}, "price_bucket", "bucket edges"),
        ({"categorical": features("price_bucket", bucket={"quantiles": 3})}, "price_bucket", "bucket edges"),
        ({"categorical": features("price_bucket", bucket="log2")}, "price_bucket", "log2 buckets"),
        ({"categorical": features("price_bucket", bucket=None)}, "price_bucket", "kind token"),
        ({"categorical": features("tags", max_values=3)}, "tags", "max_values 3"),
        ({"categorical": features("tags", max_values=None)}, "tags", "all tokens"),
        ({"categorical": features("tags", pooling="sum")}, "tags", "pooling sum"),
        ({"categorical": features("hour", part="weekday")}, "hour", "weekdays"),
    ],
)
def test_another_way_to_read_the_same_log_is_refused(days: Path, tmp_path: Path, changes: dict[str, Any], feature: str, what: str) -> None:
    other = make_day(tmp_path / "d", days / "day1.csv", schema=changed(**changes))
    message = refusal(days / "day1", other)
    assert f"feature {feature} " in message
    assert what in message


def test_other_moments_are_refused_and_rounding_is_not(days: Path, tmp_path: Path) -> None:
    write_day(tmp_path / "dearer.csv", "abcd", price=1.5)
    # Buckets of the same numbers: only the moments differ.
    dearer = make_day(tmp_path / "d", tmp_path / "dearer.csv", schema=changed(categorical=["site"]))
    plain = make_day(tmp_path / "e", days / "day1.csv", schema=changed(categorical=["site"]))
    message = refusal(plain, dearer)
    assert "feature price has mean " in message
    manifest = load_manifest(str(plain))
    (number,) = manifest.dense
    assert number.identity is not None
    assert number.identity.moments is not None
    mean, deviation = number.identity.moments
    for factor, refused in ((1e-9, False), (1e-3, True)):
        identity = number.identity.model_copy(update={"moments": (mean + factor * deviation, deviation * (1 + factor))})
        other = manifest.model_copy(update={"dense": (number.model_copy(update={"identity": identity}),)})
        assert bool(refusal(manifest, other, plain)) == refused


def test_features_that_the_model_does_not_read_do_not_matter(days: Path, tmp_path: Path) -> None:
    fewer = make_day(tmp_path / "d", days / "day1.csv", schema=changed(dense=[], categorical=["site", {"name": "hour", "part": "weekday"}]))
    reads = model_inputs(DataConfig(features=["site"], dense="buckets"), load_manifest(str(days / "day1")))
    check_compatible(reads, inputs_of(load_manifest(str(fewer))), str(fewer))
    assert "feature price is not there" in refusal(days / "day1", fewer)


def test_another_order_of_features_matters_only_where_the_model_is_built_from_it(days: Path, tmp_path: Path) -> None:
    turned = make_day(tmp_path / "d", days / "day1.csv", schema=changed(categorical=features("")[::-1]))
    assert refusal(days / "day1", turned) == ""
    message = refusal(days / "day1", turned, ordered=True)
    assert "feature hour stands where the model was trained with categorical feature site" in message


# Criteo's logs: counted, grown, hashed.


@pytest.fixture(scope="module")
def criteo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("criteo")
    for day in (0, 1):
        synthesize(str(folder / f"day_{day}.tsv"), 1500, seed=20 + day, scale=0.002)
    (folder / "both.tsv").write_bytes(b"".join((folder / f"day_{day}.tsv").read_bytes() for day in (1, 0)))

    def run(name: str, log: str, **options: Any) -> None:
        preprocess(log_files.criteo([str(folder / log)], str(folder / name), **{"split": "1,0,0", "min_count": 3, "workers": 1, **options}))

    run("old", "day_0.tsv")
    run("kept", "day_1.tsv", vocabulary=str(folder / "old"))
    run("grown", "day_1.tsv", vocabulary=str(folder / "old"), new_tokens="append")
    run("later", "day_0.tsv", vocabulary=str(folder / "grown"), new_tokens="append")
    run("unrelated", "both.tsv", min_count=1)
    run("hashed", "day_0.tsv", ids="hash", hash_size="300")
    run("hashed_next", "day_1.tsv", vocabulary=str(folder / "hashed"))
    run("hashed_more", "day_0.tsv", ids="hash", hash_size="400")
    return folder


GROWN = {"ordered": True, "grown": True}


def test_appended_ids_go_on_from_every_data_set_before(criteo: Path) -> None:
    sizes = [load_manifest(str(criteo / name)).categorical[0].cardinality for name in ("old", "grown")]
    assert sizes[0] < sizes[1]
    for old, new in (("old", "old"), ("old", "kept"), ("old", "grown"), ("grown", "later"), ("old", "later"), ("hashed", "hashed_next")):
        assert refusal(criteo / old, criteo / new, **GROWN) == ""
    for old, new in (("old", "kept"), ("hashed", "hashed_next")):
        assert refusal(criteo / old, criteo / new) == ""


def test_ids_that_mean_other_tokens_are_refused_though_the_tables_only_grow(criteo: Path) -> None:
    old, unrelated = (load_manifest(str(criteo / name)) for name in ("old", "unrelated"))
    assert all(a.cardinality <= b.cardinality for a, b in zip(old.categorical, unrelated.categorical, strict=True))
    message = refusal(criteo / "old", criteo / "unrelated", **GROWN)
    assert "feature C1 has other tokens" in message
    assert "--new-tokens append" in message
    assert "feature C1 has " in refusal(criteo / "old", criteo / "grown")


def test_fewer_ids_and_other_hashes_are_refused(criteo: Path) -> None:
    assert "a table can grow, but not shrink" in refusal(criteo / "grown", criteo / "old", **GROWN)
    for modes in ({}, GROWN):
        assert "feature C1 has 400 ids" in refusal(criteo / "hashed", criteo / "hashed_more", **modes)
        assert "the hash function" in refusal(criteo / "old", criteo / "hashed", **modes)
        assert "the ids of a vocabulary" in refusal(criteo / "hashed", criteo / "old", **modes)
    manifest = load_manifest(str(criteo / "hashed"))
    first = manifest.categorical[0]
    assert first.identity is not None
    other = first.model_copy(update={"identity": first.identity.model_copy(update={"hashed": "murmur3(token) mod N"})})
    assert "murmur3" in refusal(manifest, manifest.model_copy(update={"categorical": (other, *manifest.categorical[1:])}), criteo)


# Vocabularies that are not their manifest's.


def swap(folder: Path, name: str, change: Callable[[pa.Table], pa.Table]) -> Path:
    path = folder / "vocabulary" / f"{name}.parquet"
    pq.write_table(change(pq.read_table(path)), path)
    return path


def tokens_of(table: pa.Table) -> list[bytes]:
    found: list[bytes] = table["token"].to_pylist()
    return found


def turned(table: pa.Table) -> pa.Table:
    """The same tokens in another order; as many as the manifest says."""
    return table.set_column(0, "token", pa.concat_arrays([table["token"].combine_chunks()[1:], table["token"].combine_chunks()[:1]]))


def test_a_vocabulary_of_another_data_set_is_refused(days: Path, criteo: Path, tmp_path: Path) -> None:
    shutil.copytree(days / "day1", tmp_path / "log")
    shutil.copy(days / "day2" / "vocabulary" / "site.parquet", tmp_path / "log" / "vocabulary" / "site.parquet")
    with pytest.raises(UserError, match=r"vocabulary/site\.parquet: "):
        make_day(tmp_path / "a", days / "day2.csv", vocabulary=str(tmp_path / "log"))
    shutil.copytree(criteo / "grown", tmp_path / "grown")
    # Within the old tokens, and behind them.
    for change in (turned, lambda table: pa.concat_tables([table[:-2], turned(table[-2:])])):
        shutil.copy(criteo / "grown" / "vocabulary" / "C1.parquet", tmp_path / "grown" / "vocabulary" / "C1.parquet")
        path = swap(tmp_path / "grown", "C1", change)
        with pytest.raises(UserError, match=r"\.parquet: .*tokens") as caught:
            check_compatible(*(inputs_of(load_manifest(str(criteo / name))) for name in ("old", "grown")), str(tmp_path / "grown"), **GROWN)
        assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: table.set_column(1, "id", pa.array(table["id"].to_numpy()[::-1])), "its ids are not 2, 3"),
        (
            lambda table: table.set_column(0, "token", pa.array([None, *tokens_of(table)[1:]], pa.large_binary())),
            "without a token",
        ),
        (lambda table: table.set_column(0, "token", pa.array(range(len(table)))), "its tokens are int64"),
        (lambda table: table.set_column(2, "count", pa.array(["1"] * len(table))), "column count"),
        (lambda table: table.set_column(0, "token", pa.array([[1]] * len(table))), "column token is list"),
        (lambda table: table.drop_columns("token"), "cannot be read"),
        (lambda table: table[:-1], "ids, its manifest says"),
    ],
)
@pytest.mark.parametrize("earlier", [False, True])
def test_a_vocabulary_that_contradicts_itself_or_its_manifest_is_refused(
    days: Path, tmp_path: Path, change: Callable[[pa.Table], pa.Table], said: str, earlier: bool
) -> None:
    shutil.copytree(days / "day1", tmp_path / "d")
    path = swap(tmp_path / "d", "site", change)
    if earlier:
        without_identities(tmp_path / "d")
    with pytest.raises(UserError, match=said) as caught:
        make_day(tmp_path / "s", days / "day2.csv", vocabulary=str(tmp_path / "d"))
    assert str(caught.value).startswith(str(path))


def test_a_token_that_an_earlier_vocabulary_lists_twice_is_refused(days: Path, tmp_path: Path) -> None:
    shutil.copytree(days / "day1", tmp_path / "d")
    without_identities(tmp_path / "d")
    swap(tmp_path / "d", "site", lambda table: table.set_column(0, "token", pa.array([b"a"] * len(table), pa.large_binary())))
    with pytest.raises(UserError, match=r"site\.parquet: .*twice"):
        make_day(tmp_path / "s", days / "day2.csv", vocabulary=str(tmp_path / "d"))


def test_a_manifest_whose_parts_say_different_things_is_refused(days: Path, tmp_path: Path) -> None:
    for number, (change, said) in enumerate(
        [
            (lambda m: m["dense"][0]["identity"].update(moments=[0.0, 1.0]), "feature price: its identity"),
            (lambda m: m["made_by"]["moments"].update(price=[0.0, 1.0]), "feature price: its identity"),
            (lambda m: m["made_by"]["moments"].clear(), "price"),
            (lambda m: m["made_by"]["moments"].update(price=["x", "y"]), "price"),
            (lambda m: m["made_by"]["schema"]["categorical"][2].update(max_values=2), "feature tags: its identity"),
            (lambda m: m["made_by"]["schema"]["categorical"].pop(), "made_by.schema has other features"),
        ]
    ):
        shutil.copytree(days / "day1", tmp_path / str(number))
        edit(tmp_path / str(number), change)
        with pytest.raises(UserError, match=said) as caught:
            make_day(tmp_path / "s", days / "day2.csv", vocabulary=str(tmp_path / str(number)))
        assert str(caught.value).startswith(f"{tmp_path / str(number)}/manifest.json: ")


# Manifests that were made before they held identities.


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def without_identities(folder: Path) -> Path:
    """The data set as an earlier version wrote it."""

    def change(manifest: dict[str, Any]) -> None:
        for feature in (*manifest["dense"], *manifest["categorical"]):
            del feature["identity"]

    edit(folder, change)
    return folder


def earlier(folder: Path, source: Path) -> Manifest:
    shutil.copytree(source, folder)
    return load_manifest(str(without_identities(folder)))


@pytest.mark.parametrize("name", ["day1", "old", "hashed"])
def test_the_identities_of_an_earlier_data_set_are_those_that_are_written_now(days: Path, criteo: Path, tmp_path: Path, name: str) -> None:
    source = (days if name == "day1" else criteo) / name
    manifest = earlier(tmp_path / "d", source)
    assert manifest.categorical[0].identity is None
    assert with_identities(manifest, str(tmp_path / "d")) == load_manifest(str(source))
    now = load_manifest(str(source))
    assert with_identities(now, str(tmp_path / "nowhere")) is now


def test_what_an_earlier_data_set_tells_is_compared(days: Path, tmp_path: Path) -> None:
    one = with_identities(earlier(tmp_path / "one", days / "day1"), str(tmp_path / "one"))
    two = with_identities(earlier(tmp_path / "two", days / "day2"), str(tmp_path / "two"))
    assert "feature site has other tokens" in refusal(one, two, tmp_path / "two")
    assert refusal(one, days / "next") == ""
    shutil.rmtree(tmp_path / "one" / "vocabulary")
    unknown = with_identities(load_manifest(str(tmp_path / "one")), str(tmp_path / "one"))
    # Without the vocabulary, what shows that the ids are the same counts; the rest is compared all the same.
    assert refusal(unknown, days / "next") == ""
    assert refusal(unknown, days / "day1") == ""
    assert "feature site cannot be compared" in refusal(unknown, days / "day2")
    assert "feature site cannot be compared" in refusal(days / "day2", unknown, tmp_path / "one")
    other = make_day(tmp_path / "other", days / "day1.csv", schema=changed(dense=[{"name": "price", "transform": "log1p"}]))
    assert "feature price is sign(x) * log1p" in refusal(unknown, other)


def test_vocabularies_count_only_beside_the_shards_that_they_were_made_with(days: Path, tmp_path: Path) -> None:
    """A run's copy of its manifest, and its data set made anew in place since."""
    kept = earlier(tmp_path / "d", days / "day1")
    shutil.rmtree(tmp_path / "d")
    shutil.copytree(days / "day2", tmp_path / "d")
    model = with_identities(kept, str(tmp_path / "d"))
    assert model.categorical[0].identity is not None
    assert model.categorical[0].identity.tokens is None
    message = refusal(model, tmp_path / "d")
    assert "feature site cannot be compared" in message
    assert "data.path" in message


def test_an_earlier_data_set_beside_vocabularies_of_another_is_refused(criteo: Path, tmp_path: Path) -> None:
    manifest = earlier(tmp_path / "d", criteo / "old")
    swap(tmp_path / "d", "C1", turned)
    with pytest.raises(UserError, match=r"^/\S*d: .*vocabular"):
        with_identities(manifest, str(tmp_path / "d"))


def test_data_of_an_unknown_maker_fits_the_model_of_the_same_rows_alone(days: Path, tmp_path: Path) -> None:
    earlier(tmp_path / "d", days / "day1")
    edit(tmp_path / "d", lambda manifest: manifest.update(made_by={}, dataset="by hand"))
    unknown = with_identities(load_manifest(str(tmp_path / "d")), str(tmp_path / "d"))
    assert unknown.dense[0].identity is None
    assert refusal(unknown, unknown, tmp_path / "d") == ""
    assert refusal(unknown, days / "day1") == ""
    assert "feature price cannot be compared" in refusal(unknown, days / "day2")
