"""What is no file where a file should be: a FIFO, a folder, a device. One line, and nothing that waits."""

import contextlib
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from dmoe.checkpoint.index import read_index
from dmoe.checkpoint.tensors import TensorFile
from dmoe.config.config import Config, load_config
from dmoe.data.dataset.manifest import load_manifest
from dmoe.data.prepare.schema import load_schema
from dmoe.errors import UserError
from dmoe.report.ladder.search import load_search
from dmoe.report.ladder.spec import load_spec
from dmoe.report.predictions import load_predictions
from dmoe.report.runs import load_figures
from dmoe.serve.export.format import read_scorer_file
from dmoe.sharding.plan.plan_file import read_plan
from dmoe.sharding.planner.cluster import parse_cluster
from dmoe.sharding.planner.planning_model import load_sizes

READERS = {
    "config.yaml": load_config,
    "schema.yaml": load_schema,
    "ladder.yaml": load_spec,
    "search.yaml": load_search,
    "sizes.yaml": lambda path: load_sizes(Config(), path),
    "device.yaml": lambda path: parse_cluster(f"1x2:{path}"),
    "plan.json": read_plan,
    "metrics.json": load_figures,
    "manifest.json": lambda path: load_manifest(os.path.dirname(path)),
    "index.json": lambda path: read_index(os.path.dirname(path)),
    "scorer.json": lambda path: read_scorer_file(os.path.dirname(path)),
    "predictions.npz": lambda path: load_predictions(os.path.dirname(path)),
    "dense.safetensors": TensorFile,
}


def refused(name, path):
    with pytest.raises(UserError) as error:
        READERS[name](str(path))
    message = str(error.value)
    assert name in message
    assert message.isprintable()
    return message


@pytest.mark.parametrize("name", READERS)
def test_a_fifo_is_refused_although_someone_writes_into_it(tmp_path, name):
    path = tmp_path / name
    os.mkfifo(path)

    def write():
        with contextlib.suppress(BrokenPipeError), open(path, "wb") as file:
            file.write(b"{}")

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    try:
        assert "FIFO" in refused(name, path)
    finally:
        # The writer waits for a reader as long as there is none.
        reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        writer.join()
        os.close(reading)


@pytest.mark.parametrize("name", READERS)
def test_a_folder_is_refused(tmp_path, name):
    (tmp_path / name).mkdir()
    assert "folder" in refused(name, tmp_path / name)


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null", "/dev/tty"])
def test_a_device_is_refused(tmp_path, device):
    (tmp_path / "config.yaml").symlink_to(device)
    assert "device" in refused("config.yaml", tmp_path / "config.yaml")


@pytest.mark.parametrize("path", ["x" * 5000, "no/such.yaml", "a\0b", "x.yaml/y.yaml"])
def test_a_path_that_leads_nowhere_is_one_line(tmp_path, path):
    (tmp_path / "x.yaml").write_text("")
    with pytest.raises(UserError) as error:
        load_config(f"{tmp_path}/{path}")
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 400


def test_what_the_shell_has_opened_is_read(tmp_path):
    """Standard input, and bash's process substitution."""
    code = "import sys; from dmoe.config.config import load_config; print(load_config(sys.argv[1]).train.epochs)"
    given = {"input": "train: {epochs: 7}\n", "text": True, "capture_output": True, "check": True}
    assert subprocess.run([sys.executable, "-c", code, "/dev/stdin"], **given).stdout == "7\n"
    shell = ["bash", "-c", '"$0" -c "$1" <(cat)', sys.executable, code]
    assert subprocess.run(shell, **given).stdout == "7\n"


def test_an_array_whose_header_asks_for_more_than_the_file_has_is_refused(tmp_path):
    path = tmp_path / "predictions.npz"
    rows = {"logit": np.ones(4, np.float32), "label": np.array([True, False] * 2), "order": np.array("o")}
    np.savez(path, **rows)
    assert load_predictions(str(tmp_path)).order == "o"
    sound = path.read_bytes()
    # The header is text: as many letters for another shape.
    for shape in ("(9,)", "(0,)", "(4,)".replace("4", "-")):
        assert sound.count(b"'shape': (4,)") == 2
        path.write_bytes(sound.replace(b"'shape': (4,)", f"'shape': {shape}".encode()))
        assert "damaged" in refused("predictions.npz", path)
    path.write_bytes(sound.replace(b"'shape': (4,), }" + b" " * 14, b"'shape': (4" + b"0" * 14 + b",), }"))
    assert "damaged" in refused("predictions.npz", path)
    for other in ({**rows, "logit": np.ones(5, np.float32)}, {**rows, "label": np.ones(4)}, {"logit": rows["logit"]}):
        np.savez(path, **other)
        assert "damaged" in refused("predictions.npz", path)
    np.savez_compressed(path, **rows)
    assert "compressed" in refused("predictions.npz", path)
    for cut in (0, 10, 200, len(sound) - 30):
        path.write_bytes(sound[:cut])
        assert "damaged" in refused("predictions.npz", path)
