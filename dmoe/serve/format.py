"""What an exported scorer is on disk: `scorer.json`, `tables.safetensors`, `dense.safetensors`.

`tables` holds one matrix `rows` [R, C]: the features' rows one below the other, the table sets' dims side by side; with int8 also `scale`
[R, S], one a row and set. `dense` holds the parameters of experts, projections, gate and tower, float32.
"""

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dmoe.config import ModelConfig, Text
from dmoe.data.dataset.manifest import FeatureName
from dmoe.errors import UserError
from dmoe.json_text import parse_json
from dmoe.paths import PATHS, join, read_bounded, write_text

FILE, TABLES, DENSE = "scorer.json", "tables.safetensors", "dense.safetensors"
MAX_BYTES = 16 << 20
DTYPES = {"fp32": "F32", "fp16": "F16", "int8": "I8"}


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ScoredFeature(Strict):
    """A categorical feature: ids 0 .. cardinality - 1; with a pooling, any number of them a row."""

    name: FeatureName
    cardinality: int = Field(ge=1, lt=2**31)
    pooling: Literal["none", "sum", "mean"] = "none"


class ScoredExpert(Strict):
    kind: Text
    options: dict[str, Any]
    table_set: int = Field(ge=0)


class ScorerFile(Strict):
    """The content of scorer.json. `schema_hash` is the training data's manifest's; `files` maps names to SHA-256."""

    format: Literal["dmoe-scorer"] = "dmoe-scorer"
    version: Literal[1] = 1
    variant: Text
    rows: Literal["fp32", "fp16", "int8"]
    step: int = Field(ge=0)
    schema_hash: str
    features: list[ScoredFeature] = Field(min_length=1)
    dense: list[FeatureName]
    experts: list[ScoredExpert] = Field(min_length=1)
    set_dims: list[int] = Field(min_length=1)
    model: ModelConfig
    bf16: bool
    files: dict[str, str]


def write_scorer_file(folder: str, content: ScorerFile) -> None:
    """Writes scorer.json, the last file of an export."""
    write_text(join(folder, FILE), json.dumps(content.model_dump(mode="json"), indent=1) + "\n")


def read_scorer_file(folder: str) -> ScorerFile:
    """Reads and checks scorer.json.

    Raises:
        UserError: none there, of another version, or a field that is wrong, named.
    """
    path = join(folder, FILE)
    if not PATHS.exists(path):
        raise UserError(f"{folder}: no {FILE}: not an exported scorer; make one with dmoe export")
    try:
        raw = parse_json(read_bounded(path, MAX_BYTES, "scorer's description"))
        version = raw["version"]
        known = raw["format"] == "dmoe-scorer"
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: not a scorer's description ({str(error)[:200]}); export it again") from None
    if not known or version != 1:
        raise UserError(f"{path}: scorer version {str(version)[:20]}, this dmoe reads version 1; export it again")
    try:
        content = ScorerFile.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{path}: {'.'.join(str(part) for part in first['loc'])}: {first['msg']}; export it again") from None
    if any(expert.table_set >= len(content.set_dims) for expert in content.experts) or set(content.files) != {TABLES, DENSE}:
        raise UserError(f"{path}: its parts do not fit one another; export it again")
    return content


def digest_of(path: str) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with PATHS.open(path, "rb") as file:
        while chunk := file.read(8 << 20):
            digest.update(chunk)
    return digest.hexdigest()
