"""The config: strict, helpful, and equal after a round trip."""

import pytest

from dmoe.config.config import Config, dump_config, load_config, parse_config
from dmoe.errors import UserError


def test_resolved_config_reads_back_equal():
    config = parse_config("optimizer: {tables: {lr: 1e-2}}\nmodel: {experts: [mlp, {kind: cin, layer_maps: [4]}]}", "a.yaml")
    assert config.optimizer.tables.lr == 0.01
    assert parse_config(dump_config(config), "b.yaml") == config


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("model: {expert: 3}", [], "a.yaml: model.expert: unknown key, did you mean 'experts'?"),
        ("optimizer: {tables: {rate: 3}}", [], "a.yaml: optimizer.tables.rate: unknown key"),
        ("train: {batch_size: x}", [], "a.yaml: train.batch_size: input should be a valid integer, found 'x'"),
        ("train: {batch_size: 0}", [], "a.yaml: train.batch_size: input should be greater than or equal to 1, found 0"),
        ("train: {batch_size: true}", [], "a.yaml: train.batch_size: input should be a valid integer, found True"),
        (
            "model: {gate: soft}",
            [],
            "a.yaml: model.gate: input should be 'softmax', 'mmoe', 'mean', 'elementwise' or 'dselect_k', found 'soft'",
        ),
        ("", ["train.batchsize=3"], "a.yaml: train.batchsize: unknown key, did you mean 'batch_size'?"),
        ("", ["train.batch_size"], "--set train.batch_size: expected key=value, such as train.batch_size=4096"),
        ("train: 3", ["train.epochs=1"], "--set train.epochs=1: 'train' is a value, it has no keys below it"),
        ("a: [", [], "a.yaml:1: not YAML"),
        ("- a", [], "a.yaml: expected keys such as 'model:' and 'train:', found list"),
        ("optimizer: {tables: {kind: rowwise_adagrad}}\nmodel: {embedding: {layout: wide}}", [], "row-wise Adagrad keeps one state a row"),
        ("optimizer: {tables: {kind: rowwise_adagrad}}\nsharding: {types: [column_wise]}", [], "sharding.types: column_wise cuts rows"),
        ("correlation: {estimator: covariance, norm: l2_debiased}", [], "norm l2_debiased"),
    ],
)
def test_mistakes_are_named(text, overrides, message):
    with pytest.raises(UserError) as error:
        parse_config(text, "a.yaml", overrides)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_says_only_what_differs_from_the_one_it_extends(tmp_path):
    (tmp_path / "base.yaml").write_text("train: {batch_size: 7, epochs: 2}\nmodel: {experts: [mlp, cin]}")
    (tmp_path / "top.yaml").write_text("extends: base.yaml\ntrain: {epochs: 3}\nmodel: {experts: [mlp]}")
    config = load_config(str(tmp_path / "top.yaml"), ["train.log_every=9"])
    assert (config.train.batch_size, config.train.epochs, config.train.log_every) == (7, 3, 9)
    assert config.model.experts == ["mlp"]


@pytest.mark.parametrize(
    ("text", "message"), [("extends: self.yaml", "circle"), ("extends: no.yaml", "no such file"), ("extends: 3", "a file's name")]
)
def test_extends_that_leads_nowhere(tmp_path, text, message):
    (tmp_path / "self.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        load_config(str(tmp_path / "self.yaml"))


def test_every_config_of_the_project_is_sound(request):
    experiments = [
        path for path in (request.config.rootpath / "configs").glob("*.yaml") if not path.name.startswith(("ladder_", "search_"))
    ]
    assert len(experiments) >= 8
    for path in experiments:
        assert isinstance(load_config(str(path)), Config)


def _keys(model, path=""):
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Config.__base__):
            yield from _keys(field.annotation, f"{path}{name}.")
        else:
            yield f"{path}{name}", field.description


def test_every_key_says_what_it_does():
    assert [key for key, description in _keys(Config) if not description] == []
