"""Under a cap on memory at which one dict of counts a column breaks, preprocessing makes the data set."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from dmoe.data.dataset.manifest import load_manifest
from dmoe.data.prepare.schema import load_schema
from tests.log_files import contents

REPOSITORY = Path(__file__).parents[2]
ROWS = 500_000
CAP, GENERAL_CAP = 560 << 20, 640 << 20
"""Some 130 MiB above what is needed, which is what numba takes where it has yet to compile."""

NAIVE = """
import sys
counts = [{} for _ in range(26)]
try:
    for line in open(sys.argv[1], "rb"):
        for column, token in zip(counts, line.rstrip(b"\\n").split(b"\\t")[14:]):
            token = int(token, 16)
            column[token] = column.get(token, 0) + 1
except MemoryError:
    counts = None
    sys.exit("MemoryError")
"""


def write_log(path: Path, delimiter: str = "\t", header: bytes = b"") -> None:
    """Rows of 26 tokens that hardly ever come twice, but for one that comes in every hundredth row."""
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    with open(path, "wb") as file:
        file.write(header)
        for seed in range(0, ROWS, 20_000):
            tokens = np.random.default_rng(seed).integers(0, 2**32, (20_000, 26), dtype=np.uint32)
            tokens[::100] = 7
            nibbles = (tokens[:, :, None] >> np.arange(28, -4, -4, dtype=np.uint32)) & 15
            text = np.full((20_000, 26, 9), ord(delimiter), np.uint8)
            text[:, :, 1:] = digits[nibbles]
            head = np.tile(np.frombuffer(b"0" + f"{delimiter}1".encode() * 13, np.uint8), (20_000, 1))
            end = np.full((20_000, 1), ord("\n"), np.uint8)
            file.write(np.concatenate([head, text.reshape(20_000, -1), end], 1).tobytes())


def capped(*command: object, cap: int = CAP) -> subprocess.CompletedProcess[str]:
    """Runs a Python program that may have `cap` bytes of private memory; its libraries start as many threads on every machine."""
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=REPOSITORY,
        env=os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "2"),
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (cap, cap)),
    )


@pytest.mark.slow
def test_a_cap_that_a_one_pass_group_by_breaks(tmp_path):
    log = tmp_path / "log.tsv"
    write_log(log)
    naive = capped("-c", NAIVE, log)
    assert (naive.returncode, naive.stderr.strip()) == (1, "MemoryError")
    command = ["tools/preprocess.py", "criteo", "--input", log, "--output", tmp_path / "d", "--memory-limit", 64, "--workers", 2]
    done = capped(*command, "--block-kb", 2048, "--split", "1,0,0")
    assert done.returncode == 0, done.stderr
    manifest = load_manifest(str(tmp_path / "d"))
    assert manifest.splits["train"].rows == ROWS
    assert all(feature.cardinality >= 3 for feature in manifest.categorical)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["weights, groups, times and bags", "avazu"])
def test_a_general_log_of_texts_too(tmp_path, form: str):
    """As CSV with quotes allowed: its tokens are texts, of which Python's dicts take more. Without a cap the bytes are the same."""
    names = ["click", "w", "at", *(f"n{n}" for n in range(11)), *(f"c{n}" for n in range(26))]
    bag = {"name": "bag", "column": "c25", "separator": "0", "pooling": "mean", "max_values": 4}
    tree = {"label": "click", "weight": "w", "time": {"column": "at", "format": "unix"}, "group": "c24", "dense": ["n0", "n1"]}
    tree |= {"categorical": [*(f"c{n}" for n in range(25)), bag]}
    if form == "avazu":
        # Every feature of Avazu's log is text. Its hours are those of one day here.
        used = load_schema("avazu_x4")
        texts = [one.name for one in used.categorical if not one.part]
        names = ["click", *(f"n{n}" for n in range(13)), *texts, *(f"c{n}" for n in range(len(texts), 26))]
        tree = used.model_dump(mode="json", exclude_defaults=True) | {"time": {"column": "n0", "format": "unix"}}
    write_log(tmp_path / "log.csv", ",", ",".join(names).encode() + b"\n")
    (tmp_path / "schema.yaml").write_text(yaml.safe_dump(tree))
    command = ["tools/preprocess.py", "log", "--schema", tmp_path / "schema.yaml", "--input", tmp_path / "log.csv", "--split", "1,0,0"]
    done = capped(*command, "--output", tmp_path / "d", "--memory-limit", 64, "--workers", 2, "--block-kb", 2048, cap=GENERAL_CAP)
    assert done.returncode == 0, done.stderr
    manifest = load_manifest(str(tmp_path / "d"))
    assert manifest.splits["train"].rows == ROWS
    assert all(feature.cardinality >= 3 for feature in manifest.categorical if feature.name in names)
    free = capped(*command, "--output", tmp_path / "free", cap=resource.RLIM_INFINITY)
    assert free.returncode == 0, free.stderr
    assert contents(tmp_path / "d") == contents(tmp_path / "free")
    naive = NAIVE.replace('b"\\t")[14:]', 'b",")[14:]').replace("int(token, 16)", "bytes(token)")
    naive = capped("-c", naive, tmp_path / "log.csv", cap=GENERAL_CAP)
    assert (naive.returncode, naive.stderr.strip()) == (1, "MemoryError")
