"""The one reader of YAML: plain data of YAML 1.2, within bounds, and files that extend one another on this machine alone."""

import math

import pytest
import yaml

from dmoe.config.config import load_config, parse_config
from dmoe.config.yaml_files import NotYaml, dump_yaml, parse_yaml, read_extended
from dmoe.errors import UserError
from dmoe.report.ladder.spec import load_spec, resolve

SCALARS = {
    "1": 1, "-7": -7, "0": 0, "1_000": 1000, "0x1F": 31, "0b101": 5, "+3": 3, "1.5": 1.5, "-.5": -0.5, "2.": 2.0, "1e-3": 1e-3, "1E+3": 1e3,
    "25e9": 25e9, "true": True, "No": False, "null": None, "~": None, "": None, "010": "010", "1:30": "1:30", "1:30.5": "1:30.5",
    "2024-03-01": "2024-03-01", "2001-12-14t21:59:43.10-05:00": "2001-12-14t21:59:43.10-05:00", ".inf": ".inf", ".nan": ".nan",
    "0o17": "0o17",
    "1" + "0" * 17: 10**17, "9" * 6000: "9" * 6000, "1" + ":1" * 1000: "1" + ":1" * 1000, "0x" + "F" * 6000: "0x" + "F" * 6000, "'1'": "1",
}  # fmt: skip


@pytest.mark.parametrize(("text", "value"), SCALARS.items(), ids=[text[:20] for text in SCALARS])
def test_a_scalar_is_what_yaml_1_2_makes_of_it_and_no_text_becomes_a_date_or_a_sum(text, value):
    found = parse_yaml(f"a: {text}")["a"]
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize("key", ["1", "yes", "null", "~", "010", "1e3", "2024-03-01", "a b", "user.id"])
def test_a_key_is_the_text_that_stands_there(key):
    assert list(parse_yaml(f"{key}: 1")) == [key]
    with pytest.raises(NotYaml, match="twice"):
        parse_yaml(f"{key}: 1\n'{key}': 2")


@pytest.mark.parametrize("text", [*SCALARS, "a: b", "# c", "- d", "é\n", " ", "1e5", "=", "<<", "!x", "*a"])
def test_what_is_written_is_read_back_equal(text):
    tree = {"a": text, "b": [text, {text: text}], "c": 1e-7, "d": True, "e": None, "f": -3, "g": 1e300}
    assert parse_yaml(dump_yaml(tree)) == tree


def test_a_value_that_stands_in_two_places_is_written_twice():
    shared = [1, {"x": [2]}]
    assert dump_yaml({"a": shared, "b": shared}) == dump_yaml({"a": [1, {"x": [2]}], "b": [1, {"x": [2]}]})


BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9))
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{','.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 9))
HOSTILE = {
    "bomb": BOMB,
    "merged bomb": MERGES,
    "long text again and again": f"a: &a {'x' * 1000}\nb: &b [{','.join(['*a'] * 100)}]\nc: [{','.join(['*b'] * 100)}]",
    "chain": "a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 300)),
    "itself": "train: &t {batch_size: 64, epochs: *t}",
    "list in itself": "a: &a [*a]",
    "deep": "a: " + "[" * 100_000,
    "deep mappings": "a: " + "{a: " * 50_000,
    "block": "".join(" " * depth + "a:\n" for depth in range(200)),
    "many": "a: [" + "1," * 300_000 + "]",
    "object": "a: !!python/object/apply:os.system ['true']",
    "binary": "a: !!binary aGk=",
    "set": "a: !!set {x, y}",
    "tagged number": "a: !!int 1:1:1",
    "tagged long number": "a: !!int " + "9" * 6000,
    "tagged truth": "a: !!bool x",
    "infinite": "a: 1e999",
    "long": "a: !!float " + "1" * 500,
    "NUL": 'a: "\\0"',
    "half a character": 'a: "\\ud800"',
    "list as key": "? [a, b]\n: 1",
    "two documents": "a: 1\n---\na: 2",
    "not text": b"a: \xff",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_what_would_take_time_memory_or_a_type_of_its_own_is_one_line(text):
    with pytest.raises(NotYaml) as refused:
        parse_yaml(text)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 400


def test_aliases_and_merged_keys_within_bounds_are_read_as_by_yaml_itself():
    text = "base: &base {a: 1, b: [1, 2]}\nmade: {<<: *base, a: 4}\nlist: [*base, *base]\n"
    assert parse_yaml(text) == yaml.safe_load(text)


def test_an_error_repeats_little_of_what_a_file_says():
    thousand = "\n".join(BOMB.splitlines()[:3])
    for text in (f"{thousand}\ntrain: {{batch_size: *a2}}", f"train: {{batch_size: {'x' * 100_000}}}", "x" * 90_000 + ": 1"):
        with pytest.raises(UserError) as refused:
            parse_config(text, "x.yaml")
        assert len(str(refused.value)) < 700


def test_an_override_changes_one_of_two_places_that_an_alias_shares():
    text = "optimizer: {tables: &t {lr: 0.5, eps: 0.1}, dense: *t}"
    config = parse_config(text, "x.yaml", ["optimizer.tables.lr=0.25"])
    assert (config.optimizer.tables.lr, config.optimizer.dense.lr) == (0.25, 0.5)


@pytest.mark.parametrize(
    "value", ["20240301", "1e-3", "no", "null", "~", "010", "1:30", "2024-03-01", "[x", "{", "a: b", "x #y", "'", '"', "*a", "&b"]
)
@pytest.mark.parametrize("key", ["run.dir", "data.path", "variant", "sharding.plan", "train.init_from", "data.test_split"])
def test_an_override_of_a_text_is_that_text(key, value):
    part, _, name = key.partition(".")
    config = parse_config("", "x.yaml", [f"{key}={value}"])
    assert (getattr(getattr(config, part), name) if name else config.variant) == value
    quoted = parse_config("", "x.yaml", [f"{key}='{value.replace(chr(39), chr(39) * 2)}'"])
    assert quoted == config


def test_an_override_of_a_number_is_yaml():
    config = parse_config(
        "", "x.yaml", ["train.batch_size=1_000", "optimizer.dense.lr=1e-2", "metrics.auc=exact", "data.features=['1', b]"]
    )
    assert (config.train.batch_size, config.optimizer.dense.lr, config.metrics.auc, config.data.features) == (
        1000,
        0.01,
        "exact",
        ["1", "b"],
    )
    for wrong in ("train.batch_size=010", "train.batch_size=1:30", "correlation.alpha=.inf", "correlation.alpha=1e999"):
        with pytest.raises(UserError, match=r"train\.batch_size|correlation\.alpha"):
            parse_config("", "x.yaml", [wrong])
    assert math.isfinite(config.correlation.alpha)


@pytest.mark.parametrize(
    "name", ["s3://far/x.yaml", "http://far/x.yaml", "gs://a", "/dev/stdin", "/dev/zero", "/proc/self/environ", 3, "[a]", "''"]
)
def test_a_file_extends_files_of_this_machine_alone(tmp_path, monkeypatch, name):
    # Whoever would ask iopath for a scheme would open a connection.
    monkeypatch.setattr("dmoe.storage.paths.Paths.handler", lambda *_: pytest.fail("reached for the network"))
    (tmp_path / "x.yaml").write_text(f"extends: {name}\n")
    with pytest.raises(UserError, match=r"^[^\n]*x\.yaml: extends: "):
        load_config(str(tmp_path / "x.yaml"))
    (tmp_path / "x.yaml").write_text(f"base: {name}\nvariants: {{a: {{}}, b: {{}}}}\nrungs: [a, b]\n")
    with pytest.raises(UserError, match=r"^[^\n]*x\.yaml: base: "):
        load_spec(str(tmp_path / "x.yaml"))


def test_a_name_is_relative_to_the_file_that_says_it(tmp_path):
    for folder in ("a", "b", "b/c"):
        (tmp_path / folder).mkdir()
    (tmp_path / "a/base.yaml").write_text("train: {epochs: 7}\n")
    (tmp_path / "b/base.yaml").write_text("train: {epochs: 8}\n")
    (tmp_path / "a/ladder.yaml").write_text("base: base.yaml\nvariants: {x: {}, y: {}}\nrungs: [x, y]\n")
    (tmp_path / "b/ladder.yaml").write_text("extends: ../a/ladder.yaml\ntitle: b\n")
    (tmp_path / "b/c/ladder.yaml").write_text("extends: ../ladder.yaml\nbase: ../base.yaml\n")
    found = {}
    for folder in ("a", "b", "b/c"):
        path = str(tmp_path / folder / "ladder.yaml")
        found[folder] = resolve(load_spec(path), path, "x", 0, [], "r").train.epochs
    assert found == {"a": 7, "b": 7, "b/c": 8}


def test_files_that_extend_one_another_are_laid_over_in_order(tmp_path):
    for number in range(9):
        below = f"extends: {number - 1}.yaml\n" if number else ""
        (tmp_path / f"{number}.yaml").write_text(f"{below}a: {number}\nb: {{c{number}: 1}}\n")
    found = read_extended(str(tmp_path / "8.yaml"), "x", "config", "keys")
    assert found == {"a": 8, "b": {f"c{number}": 1 for number in range(9)}}
