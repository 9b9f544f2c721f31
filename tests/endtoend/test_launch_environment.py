"""A real job of torchx's local_cwd that prints its environment: values of --env arrive to the byte."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("NCCL_IB_HCA==mlx5_0,TOK=a=b;N=1, 2 ;E=", {"NCCL_IB_HCA": "=mlx5_0", "TOK": "a=b", "N": "1, 2 ", "E": ""}),
        (json.dumps(any_value := {"A": "x,B=y", "Q": 'it\'s "so"\n', "T": "${app_id} $$ $HOME $(A)"}), any_value),
    ],
)
def test_values_arrive(given, expected, tmp_path):
    (tmp_path / "venv/bin").mkdir(parents=True)
    python = tmp_path / "venv/bin/python"
    python.write_text(f"#!/bin/sh\ncat /proc/self/environ > {tmp_path}/environment\n")
    python.chmod(0o755)
    command = [
        str(Path(sys.executable).parent / "torchx"),
        "run",
        "--scheduler",
        "local_cwd",
        "--wait",
        f"{ROOT}/launch/components.py:train",
    ]
    command += ["--config", f"{ROOT}/configs/demo.yaml", "--elsewhere", "True", "--data", "d", "--run", "20240301", "--env", given]
    command += ["--venv", str(tmp_path / "venv")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1000, check=False)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "environment").read_bytes().decode().split("\0")
    found = dict(line.partition("=")[::2] for line in lines if line)
    assert {key: found.get(key) for key in expected} == expected
