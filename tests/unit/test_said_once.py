"""What JSON and YAML leave open is refused wherever a file is read: a key that stands twice, a number that is none."""

import json
import struct

import pytest
import yaml

from dmoe.checkpoint.index import read_index
from dmoe.checkpoint.tensors import TensorFile
from dmoe.config.config import Config, parse_config
from dmoe.config.yaml_files import parse_yaml
from dmoe.data.dataset.manifest import load_manifest
from dmoe.data.prepare.schema import load_schema
from dmoe.errors import UserError
from dmoe.json_text import parse_json
from dmoe.report.ladder.spec import load_spec
from dmoe.serve.export.format import read_scorer_file
from dmoe.sharding.plan.plan_file import read_plan
from dmoe.sharding.planner.cluster import parse_cluster
from dmoe.sharding.planner.planning_model import load_sizes

DAMAGED = [
    ('{"format": "dmoe", "a": {"b": 1, "c": 2, "b": 1}}', "key 'b' stands twice in one object"),
    ('{"a": NaN}', "NaN is no number"),
    ('{"a": [-Infinity]}', "-Infinity is no number"),
    ('{"a": 1e999}', "1e999 is too large a number"),
]
READERS = {
    "plan.json": lambda folder: read_plan(f"{folder}/plan.json"),
    "manifest.json": load_manifest,
    "index.json": read_index,
    "scorer.json": read_scorer_file,
}


@pytest.mark.parametrize(("text", "words"), DAMAGED)
@pytest.mark.parametrize("name", READERS)
def test_a_json_file_that_says_two_things_or_no_number_is_refused(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match="^[^\n]*" + name) as refused:
        READERS[name](str(tmp_path))
    assert words in str(refused.value)


def test_a_tensor_that_stands_twice_in_a_file_is_refused(tmp_path):
    entry = json.dumps({"dtype": "F32", "shape": [1], "data_offsets": [0, 4]})
    header = f'{{"a": {entry}, "a": {entry}}}'.encode()
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(UserError, match=r"x\.safetensors: damaged: .*'a'"):
        TensorFile(str(tmp_path / "x.safetensors"))


def test_what_is_sound_is_read_as_by_json_itself():
    text = '{"a": [1, -2.5e-300, true, null, "a"], "b": {"a": {"b": 18446744073709551616}}}'
    assert parse_json(text) == parse_json(text.encode()) == json.loads(text)


TWICE = "train: {seed: 1}\nmodel:\n  expert_dim: 8\n  expert_dim: 16\n"


def test_a_config_s_key_that_stands_twice_is_named_with_both_lines():
    with pytest.raises(UserError, match=r"^x\.yaml:4: .*'expert_dim'.* 3$"):
        parse_config(TWICE, "x.yaml")
    with pytest.raises(UserError, match=r"--set train=\{seed: 1, seed: 2\}: .*'seed'"):
        parse_config("", "x.yaml", ["train={seed: 1, seed: 2}"])


@pytest.mark.parametrize(
    "read",
    [load_schema, load_spec, lambda path: load_sizes(Config(), path), lambda path: parse_cluster(f"1x2:{path}")],
    ids=["schema", "spec", "cardinalities", "cluster"],
)
def test_every_other_yaml_file_too(tmp_path, read):
    (tmp_path / "x.yaml").write_text("C1: 10\nC1: 20\n")
    with pytest.raises(UserError, match=r"x\.yaml.*'C1'.* 1"):
        read(str(tmp_path / "x.yaml"))
    for text in (b"C1: \xff\n", b"C1: !!timestamp x\n", b"[" * 3000, b"C1: 1\n" + b"# \n" * (1 << 19)):
        (tmp_path / "x.yaml").write_bytes(text)
        with pytest.raises(UserError, match=r"^[^\n]*x\.yaml[^\n]*(not YAML|not a text file|larger than)[^\n]*$"):
            read(str(tmp_path / "x.yaml"))


def test_a_merged_key_may_be_overridden():
    text = "deep: {base: &base {<<: {a: 1, b: 2}, c: 3}}\nmade: {<<: *base, a: 4}\n"
    assert parse_yaml(text) == yaml.safe_load(text)
    assert parse_yaml(text)["made"] == {"a": 4, "b": 2, "c": 3}
