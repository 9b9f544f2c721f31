"""What an exported scorer is on disk: `scorer.json`, `tables.safetensors`, `dense.safetensors`, and in `inputs` what raw rows are read by.

`tables` holds one matrix `rows` [R, C]: the features' rows one below the other, the table sets' dims side by side; with int8 also `scale`
[R, S], one a row and set; with pq it is [R, J], a byte a block of four numbers, beside `codebook` [G * J * 256, 4]
(`dmoe.model.product_quantisation`). Of a light or hashed multi-embedding `rows` is of the one set that all share; of a light one `private`
(with `private_scale` or `private_codebook`) is of all sets and of the first ids of each feature alone. `dense` holds the parameters of
experts, projections, gate and tower, float32.
"""

import hashlib
import re
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from dmoe.data.dataset.compatibility import Inputs
from dmoe.errors import UserError, shown
from dmoe.json_text import format_json, is_int, parse_json
from dmoe.paths import PATHS, join, read_bounded, write_text
from dmoe.sections import ModelConfig
from dmoe.serve.card import FILE as CARD
from dmoe.serve.card import Card, as_markdown
from dmoe.strict import FeatureName, Strict, Text, checked

FORMAT: Literal["dmoe-scorer"] = "dmoe-scorer"
VERSION: Literal[1] = 1
FILE, TABLES, DENSE = "scorer.json", "tables.safetensors", "dense.safetensors"
ONNX, ONNX_DENSE, AOTI = "model.onnx", "dense.onnx", "dense.pt2"
PORTABLE = (ONNX, ONNX_DENSE, AOTI, f"{ONNX}.data", f"{ONNX_DENSE}.data")
"""Files that another runtime reads, where they were asked for; those of `.data` hold weights beyond what one ONNX file can."""
MAX_BYTES = 16 << 20
INPUT_FILE = re.compile(r"inputs/manifest\.json|inputs/vocabulary/[^/\0]+\.parquet")
DTYPES = {"fp32": "F32", "fp16": "F16", "int8": "I8", "pq": "U8"}


Share = Annotated[float, Field(ge=0, le=1)]


class ScoredFeature(Strict):
    """A categorical feature: ids 0 .. cardinality - 1; with a pooling, any number of them a row."""

    name: FeatureName
    cardinality: int = Field(ge=1, lt=2**31)
    pooling: Literal["none", "sum", "mean"] = "none"


class ScoredExpert(Strict):
    kind: Text
    options: dict[str, Any]
    table_set: int = Field(ge=0)


class Parity(Strict):
    """How far another runtime's answers were from the scorer's, at most.

    Attributes:
        runtime: and its version; of dense.pt2 also the processor's features that it is bound to.
        rows: that were compared, of random ids and numbers.
    """

    runtime: Text
    rows: int = Field(ge=1)
    logit: float = Field(ge=0)
    probability: float = Field(ge=0)


class ScorerFile(Strict):
    """The content of scorer.json.

    Attributes:
        schema_hash: of the training data's manifest.
        shares: of each feature in the training data: (rare values, missing ones); empty where an older dmoe exported it.
        files: names -> SHA-256.
        reads: `features` and `dense` as that manifest describes them, by which data to score is checked; None where an older dmoe
            exported it.
        portable: of each file for another runtime.
        card: of the run; None where an older dmoe exported it, or it is of no run that has ended.
    """

    format: Literal["dmoe-scorer"] = FORMAT
    version: Literal[1] = VERSION
    variant: Text
    rows: Literal["fp32", "fp16", "int8", "pq"]
    step: int = Field(ge=0)
    schema_hash: str
    features: list[ScoredFeature] = Field(min_length=1)
    dense: list[FeatureName]
    experts: list[ScoredExpert] = Field(min_length=1, max_length=64)
    set_dims: list[Annotated[int, Field(ge=1, le=4096)]] = Field(min_length=1, max_length=64)
    model: ModelConfig
    bf16: bool
    shares: dict[str, Annotated[tuple[Share, Share], Field(strict=False)]] = Field(default_factory=dict)
    files: dict[str, str]
    reads: Inputs | None = None
    portable: dict[str, Parity] = Field(default_factory=dict)
    card: Card | None = None

    @model_validator(mode="after")
    def _parts_fit(self) -> "ScorerFile":
        names = [feature.name for feature in self.features] + self.dense
        if len(set(names)) < len(names):
            raise ValueError("a feature is named twice")
        if any(expert.table_set >= len(self.set_dims) for expert in self.experts):
            raise ValueError(f"an expert reads a table set that set_dims does not have: it has {len(self.set_dims)}")
        if others := sorted(one for one in set(self.files) - {*PORTABLE} ^ {TABLES, DENSE} if not INPUT_FILE.fullmatch(one)):
            raise ValueError(f"files: expected {TABLES}, {DENSE} and files of inputs/, found or missing {shown(others[0])}")
        if self.reads:
            read = [(one.name, one.cardinality, one.pooling) for one in self.reads.categorical], [one.name for one in self.reads.dense]
            if read != ([(one.name, one.cardinality, one.pooling) for one in self.features], self.dense):
                raise ValueError("reads: other features than `features` and `dense`")
        return self

    @property
    def reads_raw_rows(self) -> bool:
        """Whether the training data's schema and vocabularies are there."""
        return any(INPUT_FILE.fullmatch(name) for name in self.files)

    @property
    def inputs(self) -> list[str]:
        """The names of all features that the model reads."""
        return [*(feature.name for feature in self.features), *self.dense]


def scale_of(name: str) -> str:
    """What the scales of a matrix of int8 rows are called."""
    return "scale" if name == "rows" else f"{name}_scale"


def codebook_of(name: str) -> str:
    """What the codebooks of a matrix of quantised rows are called."""
    return "codebook" if name == "rows" else f"{name}_codebook"


def write_scorer_file(folder: str, content: ScorerFile) -> None:
    """Writes CARD.md, where there is a card, and scorer.json, the last file of an export."""
    if content.card:
        kinds = [one.kind for one in content.experts]
        write_text(join(folder, CARD), as_markdown(content.card, content.variant, content.step, content.rows, kinds))
    # An older dmoe reads a file that has none of them.
    absent = {name for name in ("reads", "portable", "card") if not getattr(content, name)}
    dumped = content.model_dump(mode="json", exclude=absent)
    write_text(join(folder, FILE), format_json(dumped, indent=1) + "\n")


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
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); export it again") from None
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise UserError(f"{path}: not a scorer's description (its format is not '{FORMAT}'); export it again")
    if not is_int(raw.get("version"), VERSION):
        raise UserError(f"{path}: scorer version {shown(raw.get('version'))}, this dmoe reads version {VERSION}; export it again")
    return checked(ScorerFile.model_validate, raw, path, "; export it again")


def digest_of(path: str) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with PATHS.open(path, "rb") as file:
        while chunk := file.read(8 << 20):
            digest.update(chunk)
    return digest.hexdigest()
