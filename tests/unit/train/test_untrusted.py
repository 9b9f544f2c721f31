"""Files that a user was given: whatever they hold is accepted or refused in a line, never a traceback, never run.

Raw lines are fuzzed in tests/unit/data/test_parse.py.
"""

import json
import struct

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from dmoe.checkpoint import index as checkpoint
from dmoe.checkpoint.contents import Contents
from dmoe.checkpoint.tensors import TensorFile, write_tensors
from dmoe.config.config import parse_config
from dmoe.config.model_sections import ModelConfig
from dmoe.data.dataset.manifest import load_manifest
from dmoe.errors import UserError
from dmoe.serve.export.format import read_scorer_file
from dmoe.sharding.plan.plan_file import read_plan
from dmoe.testing.small_data import make_data_set
from tests.unit.sharding.small_plans import plan_of, table

# No shrinking: with it, one failure costs minutes.
FUZZ = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=20),
    st.just([]),
    st.just({}),
    st.just("../../etc/passwd"),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=3),
)


def places(tree, path=()):
    """Paths to every node of a tree of plain data."""
    yield path
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield from places(value, (*path, key))


@st.composite
def mutated(draw, tree, paths):
    """The tree with a node or two replaced, removed, or doubled."""
    tree = json.loads(json.dumps(tree))
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from(paths))
        if not path:
            return draw(ODD)
        node = tree
        try:
            for key in path[:-1]:
                node = node[key]
            node[path[-1]]
        except (KeyError, IndexError, TypeError):
            continue
        if isinstance(node, str):
            continue
        how = draw(st.sampled_from(["replace", "remove", "add"]))
        if how == "replace":
            node[path[-1]] = draw(ODD)
        elif how == "remove":
            del node[path[-1]]
        elif isinstance(node, dict):
            node[draw(st.text(max_size=8))] = draw(ODD)
        else:
            node.append(draw(ODD))
    return tree


def accepted_or_refused(action):
    try:
        return action()
    except UserError as error:
        message = str(error)
        assert message
        assert len(message) < 2000
        return None


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("manifest")
    make_data_set(folder, {"train": 40, "validation": 10, "test": 10})
    return folder, json.loads((folder / "manifest.json").read_text())


@FUZZ
@given(data=st.data())
def test_manifests(manifest, data):
    folder, sound = manifest
    tree = data.draw(mutated(sound, sorted(places(sound), key=str)))
    (folder / "manifest.json").write_text(json.dumps(tree))
    loaded = accepted_or_refused(lambda: load_manifest(str(folder)))
    if loaded is not None:
        for split in loaded.splits.values():
            assert split.rows == sum(shard.rows for shard in split.shards)
            assert not any(".." in shard.path.split("/") or shard.path.startswith("/") for shard in split.shards)


@FUZZ
@given(text=st.one_of(st.binary(max_size=200), st.just(b"[" * 100_000), st.just(b'{"a":' * 50_000), st.just(b"9" * 5000)))
def test_manifests_and_indexes_that_are_not_even_json(tmp_path, text):
    for name, load in (("manifest.json", load_manifest), (checkpoint.INDEX, checkpoint.read_index)):
        (tmp_path / name).write_bytes(text)
        assert accepted_or_refused(lambda load=load: load(str(tmp_path))) is None


HOSTILE_YAML = [
    "!!python/object/apply:os.system ['touch /tmp/dmoe-was-here']",
    "a: &a [*a]",
    "[" * 3000,
    "run: {dir: !!binary abc}",
    "a: !!timestamp x",
    "? [1, 2]\n: 3",
    "1: 2",
    "train: {seed: 0x}",
    "train: {batch_size: !!int x}",
    'data: {path: "\\0"}',
]


@FUZZ
@given(text=st.text(max_size=60), override=st.one_of(st.just("train.seed=1"), st.text(max_size=20)))
def test_configs_that_are_any_text(text, override):
    accepted_or_refused(lambda: parse_config(text, "x.yaml", [override]))


@pytest.mark.parametrize("text", HOSTILE_YAML)
def test_configs_that_mean_harm(text):
    accepted_or_refused(lambda: parse_config(text, "x.yaml"))
    accepted_or_refused(lambda: parse_config("", "x.yaml", [f"run.dir={text[:100]}"]))


def test_yaml_that_expands_without_bound_is_refused():
    laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
    with pytest.raises(UserError):
        parse_config(laughs, "x.yaml")


@pytest.fixture(scope="module")
def sound_checkpoint(tmp_path_factory):
    """A checkpoint of two tables, written by hand: a whole one, and one in pieces of rows and of columns, with a state a row."""
    import numpy as np

    folder = tmp_path_factory.mktemp("checkpoint")
    arrays = {
        "C1/0|weight|0|0": np.ones((4, 2), np.float32),
        "C2/0|weight|0|0": np.ones((3, 4), np.float32),
        "C2/0|weight|3|0": np.ones((2, 3), np.float32),
        "C2/0|weight|3|3": np.ones((2, 1), np.float32),
        "C2/0|sum|0|0": np.ones(5, np.float32),
    }
    files = {}
    for name, part in {"tables-00000-00000.safetensors": arrays, "dense.safetensors": {"model/w": np.ones(3, np.float32)}}.items():
        with (folder / name).open("wb") as file:
            files[name] = write_tensors(file, [(key, "F32", x.shape) for key, x in part.items()], part.values())
    pieces = []
    for key, array in arrays.items():
        table, state, row, column = key.split("|")
        width = array.shape[1] if array.ndim == 2 else 0
        pieces.append(checkpoint.Piece(table, state, int(row), int(column), len(array), width, "tables-00000-00000.safetensors", key))
    checkpoint.write_index(str(folder), checkpoint.Index({"C1/0": (4, 2), "C2/0": (5, 4)}, tuple(pieces), files, {"step": 3}))
    return folder, json.loads((folder / checkpoint.INDEX).read_text())


def read_all(folder):
    contents = Contents(str(folder))
    return {name: [block.shape for block in contents.blocks(name)] for name in contents.names()}


def test_the_sound_one_is_read(sound_checkpoint):
    folder, _ = sound_checkpoint
    assert read_all(folder) == {"C1/0": [(4, 2)], "C2/0": [(5, 4)], "C2/0:sum": [(5,)], "model/w": [(3,)]}


@FUZZ
@given(data=st.data())
def test_checkpoint_indexes(sound_checkpoint, tmp_path, data):
    """With a checksum that is right: a hostile file has one."""
    folder, sound = sound_checkpoint
    tree = data.draw(mutated(sound, sorted(places(sound), key=str)))
    if isinstance(tree, dict):
        tree["checksum"] = checkpoint._checksum(tree)
    for name in ("tables-00000-00000.safetensors", "dense.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / checkpoint.INDEX).write_text(json.dumps(tree))
    accepted_or_refused(lambda: read_all(tmp_path))


HEADER = {"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}, "b": {"dtype": "I64", "shape": [], "data_offsets": [16, 24]}}


@FUZZ
@given(data=st.data())
def test_safetensors_headers(tmp_path, data):
    tree = data.draw(mutated(HEADER, sorted(places(HEADER), key=str)))
    text = json.dumps(tree).encode()
    length = data.draw(st.one_of(st.just(len(text)), st.integers(0, 2**64 - 1)))
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", length) + text + bytes(24))

    def read():
        file = TensorFile(str(tmp_path / "x.safetensors"))
        return [file.rows(name).shape for name in file.entries]

    accepted_or_refused(read)


@FUZZ
@given(content=st.binary(max_size=100))
def test_safetensors_that_are_any_bytes(tmp_path, content):
    (tmp_path / "x.safetensors").write_bytes(content)
    accepted_or_refused(lambda: TensorFile(str(tmp_path / "x.safetensors")))


def test_nothing_that_loads_a_file_can_unpickle():
    """No module of the library names a loader that runs what it reads. torch's object collectives, and what the supervisors of `dmoe
    accept` tell one another through torchrun's store, are among the processes of one program."""
    import re
    from pathlib import Path

    forbidden = re.compile(
        r"\b(pickle|cloudpickle|dill|shelve|from marshal|marshal\.loads?)\b|"
        r"torch\.load\(|yaml\.load\((?!.*_Loader)|allow_pickle=True|(?<!\.)\beval\(|\bexec\("
    )
    root = Path(__file__).resolve().parents[3]
    for path in {*(root / "dmoe").rglob("*.py"), *(root / "tools").rglob("*.py")} - {root / "dmoe" / "accept" / "ranks.py"}:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if (found := forbidden.search(line)) and ".eval()" not in line and "unpickle" not in line:
                raise AssertionError(f"{path}:{number}: {found.group()}")


HOSTILE = "a\x1b[31mb\nforged: line"


@pytest.mark.parametrize("place", ["table", "state", "key"])
def test_a_checkpoint_whose_names_act_on_a_terminal_is_refused(tmp_path, place):
    feature, state, key = (HOSTILE if place == one else known for one, known in (("table", "C1"), ("state", "weight"), ("key", "k")))
    piece = checkpoint.Piece(f"{feature}/0", state, 0, 0, 2, 4, "dense.safetensors", key)
    pieces = (piece, checkpoint.Piece(f"{feature}/0", "weight", 0, 0, 2, 4, "dense.safetensors", "k")) if place == "state" else (piece,)
    index = checkpoint.Index({f"{feature}/0": (2, 4)}, pieces, {"dense.safetensors": (1, "0" * 64)}, {})
    checkpoint.write_index(str(tmp_path), index)
    with pytest.raises(UserError, match=r"index.json: damaged"):
        checkpoint.read_index(str(tmp_path))


def test_a_plan_whose_names_act_on_a_terminal_is_refused(tmp_path):
    plan = plan_of({"C1": table(10, 4, "table_wise", (0, 0, 10, 4, 0))})
    plan["tables"][HOSTILE] = plan["tables"].pop("C1")
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(UserError, match=r"plan\.json: table 'a") as refused:
        read_plan(str(tmp_path / "plan.json"))
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("field", ["variant", "features", "dense", "experts"])
def test_a_scorer_whose_names_act_on_a_terminal_is_refused(tmp_path, field):
    content = {
        "format": "dmoe-scorer",
        "version": 1,
        "variant": "v",
        "rows": "fp32",
        "step": 1,
        "schema_hash": "",
        "features": [{"name": "C1", "cardinality": 3, "pooling": "none"}],
        "dense": ["I1"],
        "experts": [{"kind": "mlp", "options": {}, "table_set": 0}],
        "set_dims": [4],
        "model": ModelConfig().model_dump(mode="json"),
        "bf16": False,
        "files": {"tables.safetensors": "", "dense.safetensors": ""},
    }
    (tmp_path / "scorer.json").write_text(json.dumps(content))
    assert read_scorer_file(str(tmp_path)).variant == "v"
    hostile = {"variant": HOSTILE, "dense": [HOSTILE]}
    hostile |= {key: [content[key][0] | {name: HOSTILE}] for key, name in (("features", "name"), ("experts", "kind"))}
    content[field] = hostile[field]
    (tmp_path / "scorer.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"scorer.json: {field}"):
        read_scorer_file(str(tmp_path))
