"""Every config of configs/ loads, and builds its model on a data set of its kind; the protocols' take a step's forward on it."""

import shlex
from pathlib import Path

import pytest
import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from dmoe.cli.main import parse
from dmoe.config.config import load_config
from dmoe.data.dataset.manifest import CategoricalFeature, DenseFeature, Manifest
from dmoe.data.prepare.avazu_protocols import PROTOCOLS
from dmoe.data.prepare.schema import load_schema
from dmoe.errors import UserError
from dmoe.model.build import build_model, build_task, make_blueprint
from dmoe.testing.criteo import BUCKETS, CATEGORICAL, INTEGERS

CONFIGS = Path(__file__).parents[2] / "configs"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.yaml") if not path.stem.startswith(("ladder_", "search_")))
PROTOCOL_NAMES = ["criteo_x1", "criteo_x4", "avazu_x1", "avazu_x4", "multi_embedding"]
ROWS, CARDINALITY = 5, 7


def manifest_for(name: str) -> Manifest:
    """A data set as preprocessing would make it for that config, its features cut to seven ids."""
    if name.startswith("avazu"):
        schema = load_schema(PROTOCOLS[name.removeprefix("avazu_")]["schema"])
        names, dense = [one.name for one in schema.categorical], []
    elif name == "frappe":
        names, dense = [f"F{number}" for number in range(10)], []
    else:
        names, dense = list(CATEGORICAL), list(INTEGERS)
    return Manifest(
        dataset=name,
        dense=tuple(DenseFeature(name=one, transform="x", missing_share=0.0) for one in dense),
        categorical=tuple(
            CategoricalFeature(
                name=one, kind="bucket" if one in BUCKETS else "token", cardinality=CARDINALITY, missing_share=0.0, rare_share=0.0
            )
            for one in names
        ),
        splits={},
    )


@pytest.mark.parametrize("name", NAMES)
def test_it_loads_and_builds_its_model(name: str):
    config = load_config(str(CONFIGS / f"{name}.yaml"))
    blueprint = make_blueprint(config, manifest_for(name))
    with torch.device("meta"):
        task = build_task(config, build_model(config, blueprint))
    assert sum(parameter.numel() for parameter in task.parameters()) > 0


@pytest.mark.parametrize("name", PROTOCOL_NAMES)
def test_a_protocols_model_takes_rows_of_its_data_set(name: str):
    config = load_config(str(CONFIGS / f"{name}.yaml"))
    blueprint = make_blueprint(config, manifest_for(name))
    fields = {"criteo_x1": 26, "criteo_x4": 39, "avazu_x1": 22, "avazu_x4": 24, "multi_embedding": 39}[name]
    assert (len(blueprint.features), len(blueprint.dense)) == (fields, 13 if name == "criteo_x1" else 0)
    model = build_model(config, blueprint, embedding_device="cpu").eval()
    ids = KeyedJaggedTensor(
        keys=[feature.name for feature in blueprint.features],
        values=torch.randint(0, CARDINALITY, (fields * ROWS,)),
        lengths=torch.ones(fields * ROWS, dtype=torch.int32),
    )
    outputs, _ = model(torch.randn(ROWS, len(blueprint.dense)), ids)
    assert outputs.logit_B.shape == (ROWS,)
    assert bool(outputs.logit_B.isfinite().all())


@pytest.mark.parametrize("name", [*PROTOCOL_NAMES, "criteo_1tb_cluster"])
def test_the_commands_that_a_protocol_prints_are_commands(name: str):
    lines = (CONFIGS / f"{name}.yaml").read_text().splitlines()
    commands = [line.removeprefix("#   dmoe ") for line in lines if line.startswith("#   dmoe ")]
    trained = [line.partition("dmoe.train ")[2] for line in lines if line.startswith("#   torchrun ")]
    assert commands
    for words in (*commands, *(f"train {rest}" for rest in trained)):
        *_, parsed = parse(shlex.split(words))
        assert f"configs/{name}.yaml" == getattr(parsed, "config", f"configs/{name}.yaml")


def test_a_shipped_config_is_found_by_its_name_and_never_in_place_of_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = load_config("demo")
    assert load_config("demo.yaml") == shipped
    with pytest.raises(UserError, match=r"--config demo$"):
        load_config("configs/demo.yaml")
    with pytest.raises(UserError, match="criteo_dmoe"):
        load_config("criteo_dmo")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "demo.yaml").write_text("train: {batch_size: 7}\n")
    assert load_config("configs/demo.yaml").train.batch_size == 7
