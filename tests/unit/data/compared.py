"""Days of a log, their data sets, and why one does not fit a model of another."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dmoe.data.dataset.compatibility import check_compatible, inputs_of
from dmoe.data.dataset.manifest import Manifest, load_manifest
from dmoe.errors import UserError
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


def make_days(folder: Path) -> Path:
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
