"""Avazu's log by its built-in schema, against a plain reference on generated rows."""

import random
from collections import Counter
from datetime import date
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dmoe.data.dataset.manifest import load_manifest
from dmoe.data.prepare.avazu_protocols import PROTOCOLS, avazu_schema
from dmoe.data.prepare.schema import load_schema
from dmoe.data.prepare.split.split_rules import Splitter, parse_shares
from dmoe.errors import UserError
from tests.unit.data.log.logs import make, read_split

FIELDS = [one.name for one in load_schema("avazu_x4").categorical if not one.part]
PARTS = {"x4": ["hour", "weekday", "is_weekend"], "x1": ["hour"], "multi_embedding": ["hour"]}
HEADER = ["id", "click", "hour", *FIELDS]


def make_avazu(path: Path, rows: int) -> list[dict[str, str]]:
    """Rows in the order of time, as the log has them: ten days from 2014-10-21 on."""
    draw = random.Random(0)
    made = []
    for number in range(rows):
        hour = number * 240 // rows
        row = {name: f"{draw.randrange(40) ** 2:08x}" for name in FIELDS} | {"C20": draw.choice(["-1", "100084"]), "banner_pos": "0"}
        row |= {"id": str(10**18 + number), "click": str(draw.randrange(2)), "hour": f"1410{21 + hour // 24}{hour % 24:02d}"}
        made.append(row | {"device_id": draw.choice(["a99f214a", f"{draw.getrandbits(32):08x}"])})
    path.write_text("\n".join(",".join(row[name] for name in HEADER) for row in [dict(zip(HEADER, HEADER, strict=True)), *made]) + "\n")
    return made


def parts_of(row: dict[str, str]) -> dict[str, str]:
    """FuxiCTR's convert_hour, convert_weekday and convert_weekend of avazu_x4."""
    text = row["hour"]
    weekday = date(2000 + int(text[:2]), int(text[2:4]), int(text[4:6])).strftime("%w")
    return row | {"hour": str(int(text[6:8])), "weekday": weekday, "is_weekend": "1" if weekday in "06" else "0"}


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
def test_ids_equal_the_plain_reference(tmp_path: Path, protocol: str):
    rows = [parts_of(row) for row in make_avazu(tmp_path / "train.csv", 480)]
    settings = {name: PROTOCOLS[protocol][name] for name in ("min_count", "split", "split_by")}
    folder = make(tmp_path / "d", tmp_path / "train.csv", schema=avazu_schema(protocol), where="avazu", dataset="avazu", **settings)
    names = [*FIELDS, *PARTS[protocol]]
    manifest = load_manifest(str(folder))
    assert [one.name for one in manifest.categorical] == names
    assert len(names) == {"x4": 24, "x1": 22, "multi_embedding": 22}[protocol]
    found = [row for split in ("train", "validation", "test") for row in read_split(folder, split)]
    train = len(read_split(folder, "train"))
    if settings["split_by"] == "time":
        assert train == pytest.approx(0.7 * 480, abs=2)
        ordered = rows
    else:
        assigned = Splitter(parse_shares("0.8,0.1,0.1"), "random", 0).assign(0, 480, 480)
        ordered = [rows[place] for place in assigned.argsort(kind="stable")]
        assert train == (assigned == 0).sum()
    assert [row["label"] for row in found] == [int(row["click"]) for row in ordered]
    for name in names:
        counts = Counter(row[name] for row in ordered[:train])
        tokens = sorted((one for one in counts if counts[one] >= settings["min_count"]), key=lambda one: (-counts[one], one))
        ids = {token: 2 + place for place, token in enumerate(tokens)}
        assert [row[name] for row in found] == [ids.get(row[name], 1) for row in ordered]
        vocabulary = pq.read_table(folder / "vocabulary" / f"{name}.parquet").to_pylist()
        assert [(row["token"].decode(), row["id"], row["count"]) for row in vocabulary] == [(t, ids[t], counts[t]) for t in tokens]


def test_a_column_can_be_left_out_and_a_wrong_name_is_told(tmp_path: Path):
    make_avazu(tmp_path / "train.csv", 60)
    folder = make(tmp_path / "d", tmp_path / "train.csv", schema=avazu_schema("x4", ("device_id",)), where="avazu", dataset="avazu")
    assert "device_id" not in [one.name for one in load_manifest(str(folder)).categorical]
    with pytest.raises(UserError, match=r"--drop: .*'device'"):
        avazu_schema("x4", ("device",))
