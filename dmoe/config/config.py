"""An experiment as one strict, typed tree: YAML in, overrides on top, the resolved tree kept beside the run.

No configuration object enters a block of the model: whoever builds a block reads the tree and passes plain values.
"""

import json
import re
from typing import Any, get_args

from pydantic import Field, model_validator

from dmoe.config.model_sections import CorrelationConfig, DistillConfig, ModelConfig, SpecializationConfig, SupervisionConfig
from dmoe.config.online_settings import OnlineConfig
from dmoe.config.sections import DataConfig, MetricsConfig, OptimizerConfig, RunConfig, ShardingConfig, TrainConfig
from dmoe.config.shipped import find_config
from dmoe.config.strict import Strict, Text, checked
from dmoe.config.yaml_files import NotYaml, dump_yaml, parse_mapping, parse_yaml, read_extended
from dmoe.errors import UserError, one_line
from dmoe.json_text import format_json

EXPECTED = "keys such as 'model:' and 'train:'"
_BARE = re.compile(r"""[^\s".='](?:[^".=']*[^\s".='])?""")
_KEY = re.compile(r"""\s*(?:(?P<quoted>"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*")\s*|(?P<bare>[^.="]*))(?P<sign>[.=])""")


class Config(Strict):
    """The whole experiment."""

    variant: Text = Field("D-MoE", description="what reports call it")
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    correlation: CorrelationConfig = CorrelationConfig()
    supervision: SupervisionConfig = SupervisionConfig()
    distill: DistillConfig = DistillConfig()
    specialisation: SpecializationConfig = SpecializationConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    sharding: ShardingConfig = ShardingConfig()
    train: TrainConfig = TrainConfig()
    metrics: MetricsConfig = MetricsConfig()
    run: RunConfig = RunConfig()
    online: OnlineConfig = OnlineConfig()

    @model_validator(mode="after")
    def _parts_fit(self) -> "Config":
        kind, layout = self.optimizer.tables.kind, self.model.embedding.layout
        if (
            kind == "rowwise_adagrad"
            and layout == "wide"
            and self.model.embedding.sets in ("per_expert", "light")
            and len(self.model.experts) > 1
        ):
            raise ValueError(
                "model.embedding.layout: row-wise Adagrad keeps one state a row, and a wide row holds all experts' embeddings,"
                " so wide would train another model than separate; use layout separate (or auto), or optimizer.tables.kind adagrad"
            )
        if self.model.mixture == "hidden" and self.model.expert_tower == "own" and not self.supervision.on:
            raise ValueError(
                "model.expert_tower: nothing would train an expert's own tower: give supervision.expert_weight, or mixture logits"
            )
        trained = self.distill.on or (self.model.mixture, self.model.gate, self.supervision.on) == ("logits", "mean", True)
        if self.supervision.mixture_weight == 0 and not trained:
            raise ValueError(
                "supervision.mixture_weight: 0 leaves the gate and the mixture's tower untrained; use model.gate mean, model.mixture"
                " logits and supervision.expert_weight 1, or give distill.teachers"
            )
        if self.specialisation.gate_entropy_weight and self.model.gate != "dselect_k":
            raise ValueError(f"specialisation.gate_entropy_weight: gate {self.model.gate} has no selectors; use model.gate dselect_k")
        if self.metrics.expert_predictions and not self.metrics.predictions:
            raise ValueError("metrics.expert_predictions: they lie beside the mixture's; set metrics.predictions=true too")
        cut = {"column_wise", "table_column_wise", "grid_shard"} & set(self.sharding.types or [])
        if kind == "rowwise_adagrad" and cut:
            raise ValueError(
                f"sharding.types: {sorted(cut)[0]} cuts rows, and row-wise Adagrad keeps one state a row and cut, so the plan would"
                " change the mathematics; leave it out, or use optimizer.tables.kind adagrad"
            )
        return self


def load_config(path: str, overrides: list[str] | None = None) -> Config:
    """Reads a YAML file, or the shipped config of that name, applies `key.path=value` overrides, and checks the whole.

    A file that `extends:` another, named relative to itself, is laid over that one: it says only what differs. An override's value is
    YAML, but for a key that takes text: there it is the text itself, so that `run.dir=20240301` is a folder and no number. A part of a
    key that holds '.' or '=', as a feature's name may, stands in double quotes: `sharding.tables."user.id".types=[row_wise]`.

    Raises:
        UserError: no such file, not YAML, an unknown key (the nearest one is named), a wrong type, or parts that do not fit.
    """
    path = find_config(path)
    return _checked(read_extended(path, f"--config {path}", "config", EXPECTED), path, overrides)


def parse_config(text: str, where: str, overrides: list[str] | None = None) -> Config:
    """As `load_config`, of a text that extends nothing; `where` begins the error messages."""
    return _checked(parse_mapping(text, where, EXPECTED), where, overrides)


def _checked(tree: dict[str, Any], where: str, overrides: list[str] | None) -> Config:
    for override in overrides or []:
        _override(tree, override)
    return checked(Config.model_validate, tree, where)


def dump_config(config: Config) -> str:
    """The resolved tree as YAML; `parse_config` reads it back to an equal tree."""
    return dump_yaml(config.model_dump(mode="json"))


def setting(key: str, text: str) -> str:
    """The override that gives a key this text, whatever letters it has."""
    bare = text == text.strip() and not _is_quoted(text)
    return f"{key}={text if bare else format_json(text, ensure_ascii=False)}"


def _is_quoted(text: str) -> bool:
    return len(text) > 1 and text[0] == text[-1] and text[0] in "'\""


def override_key(*names: str) -> str:
    """The names as the key of an override; those that hold its signs are in double quotes, as JSON has them."""
    return ".".join(name if _BARE.fullmatch(name) else format_json(name, ensure_ascii=False) for name in names)


def split_override(override: str) -> tuple[list[str], str]:
    """The names of an override's key, and its value.

    Raises:
        UserError: it is not of the form `key.path=value`.
    """
    names: list[str] = []
    at, sign = 0, "."
    while sign == "." and (found := _KEY.match(override, at)):
        names.append(found["bare"].strip() if found["quoted"] is None else json.loads(found["quoted"]))
        at, sign = found.end(), found["sign"]
    if sign != "=" or "" in names:
        what = "expected key=value, such as train.batch_size=4096; a name that holds '.' or '=' goes in double quotes"
        raise UserError(f"--set {one_line(override)}: {what}")
    return names, override[at:]


def _override(tree: dict[str, Any], override: str) -> None:
    told = one_line(override)
    (*parents, leaf), value = split_override(override)
    node = tree
    for parent in parents:
        # A copy: an alias of the file may have the same mapping stand in two places.
        below = node.get(parent, {})
        if not isinstance(below, dict):
            raise UserError(f"--set {told}: '{one_line(parent)}' is a value, it has no keys below it")
        node[parent] = node = dict(below)
    text = value.strip()
    if _takes_text(Config, [*parents, leaf]) and not _is_quoted(text):
        node[leaf] = text
        return
    try:
        node[leaf] = parse_yaml(value)
    except NotYaml as error:
        raise UserError(f"--set {told}: the value is not YAML ({error}); quote it") from None


def _takes_text(model: Any, keys: list[str]) -> bool:
    """Whether the config's value of that key is a text."""
    for key in keys:
        field = getattr(model, "model_fields", {}).get(key)
        model = field.annotation if field else None
    return model is str or (bool(get_args(model)) and all(isinstance(one, str) for one in get_args(model)))
