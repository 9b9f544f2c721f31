"""A delta against a full version: bytes and seconds, of a table of many rows of which one window changes some.

    python tools/bench/delta_size.py --output /tmp/deltas        # a million users, of whom 20,000 click in the second window

A run of `dmoe online` over two windows; then both of its checkpoints are published as fp32, fp16 and int8.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv

from dmoe.config.config import load_config
from dmoe.data.dataset.files import file_sha256
from dmoe.errors import run_command
from dmoe.online.publish import Publisher
from dmoe.online.status import status
from dmoe.serve.export.delta import make_delta
from dmoe.serve.export.format import FILE
from dmoe.serve.export.materialise import materialise

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
model: {embedding: {dim: 16}, experts: [crossnet, {kind: mlp, hidden: [32]}], expert_dim: 16}
train: {batch_size: 8192, checkpoint: {keep: 3}}
online: {schema_file: SCHEMA, ids: {capacity: CAPACITY, admit_count: 1}}
"""
SCHEMA = "label: click\ncategorical: [user, site]\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="an empty folder")
    parser.add_argument("--rows", type=int, default=1_000_000, help="users, each of whom has a row of the table")
    parser.add_argument("--changed", type=int, default=20_000, help="users of the second window")
    arguments = parser.parse_args()
    folder = arguments.output
    (folder / "logs").mkdir(parents=True)
    draw = np.random.default_rng(0)
    for number, rows in ((1, arguments.rows), (2, arguments.changed)):
        user, site = draw.permutation(arguments.rows)[:rows], draw.integers(0, 50, rows)
        click = (draw.random(rows) < 0.1 + 0.01 * site).astype(np.int64)
        columns = {"click": click, "user": [f"u{one}" for one in user], "site": [f"s{one}" for one in site]}
        csv.write_csv(pa.table(columns), folder / "logs" / f"w{number}.csv")
    (folder / "schema.yaml").write_text(SCHEMA)
    text = CONFIG.replace("SCHEMA", str(folder / "schema.yaml")).replace("CAPACITY", str(arguments.rows + 2))
    (folder / "online.yaml").write_text(text)
    command = [sys.executable, "-m", "dmoe", "online", "--config", str(folder / "online.yaml"), "--source", str(folder / "logs")]
    command += ["--run", str(folder / "run"), "--once", "--set", "online.watch.action=tell"]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    windows = status(str(folder / "run"))["windows"]
    print("| rows are | full MB | delta MB | share | rows in it | export s | delta s | full made of both s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for rows in ("fp32", "fp16", "int8"):
        print(measured(folder, rows, windows), flush=True)


def measured(folder: Path, rows: str, windows: list[dict]) -> str:
    run, target = folder / "run", folder / rows
    publisher = Publisher(str(target), str(run), load_config(str(run / "config.yaml"), [f"online.versions.rows={rows}"]))
    kept, made = target / "000001", None
    for line in windows:
        made = publisher.publish(line["window"], str(run / "checkpoints" / f"step-{line['step']:09d}"), f"{line['window']:06d}")
        if line["window"] == 1:
            shutil.copytree(run / "published" / "000001", kept)
    assert made is not None
    began = time.perf_counter()
    make_delta(str(kept), str(run / "published" / "000002"), "000001", str(target / "again"))
    took = time.perf_counter() - began
    began = time.perf_counter()
    place = materialise(str(target / "versions" / "000002"), str(target / "made"))
    applied = time.perf_counter() - began
    assert file_sha256(f"{place}/{FILE}") == file_sha256(str(run / "published" / "000002" / FILE))
    share = made["bytes"] / made["full_bytes"]
    sizes = f"{made['full_bytes'] / 1e6:.1f} | {made['bytes'] / 1e6:.2f} | {share:.1%} | {made['rows']:,}"
    return f"| {rows} | {sizes} | {made['seconds'] - took:.1f} | {took:.1f} | {applied:.1f} |"


if __name__ == "__main__":
    sys.exit(run_command("tools/bench/delta_size.py", main))
