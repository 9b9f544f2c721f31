"""The files of an exported scorer: `scorer.json`, `tables.safetensors`, `dense.safetensors`, and `inputs`, which is needed for raw rows.

`tables` holds the matrix `rows` [R, C]: the rows of all features one below the other, the dims of all table sets side by side. With int8,
`scale` [R, S] has a scale for each row and set. With pq, `rows` is [R, J], a byte for each block of four numbers, and `codebook` is
[G * J * 256, 4] (`dmoe.model.embedding.product_quantization`). For light and hashed multi-embeddings, `rows` has only the one set that all
experts share. Light ones also have `private` (with `private_scale` or `private_codebook`): all sets, but only the first ids of a feature.
`dense` holds the parameters of experts, projections, gate and tower, float32.
"""

import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, model_validator

from dmoe.config.model_sections import ModelConfig
from dmoe.config.strict import FeatureName, Strict, Text, checked
from dmoe.data.dataset.compatibility import Inputs
from dmoe.errors import UserError, shown
from dmoe.json_text import format_json
from dmoe.serve.export.card import FILE as CARD
from dmoe.serve.export.card import Card, as_markdown
from dmoe.storage.documents import read_document
from dmoe.storage.paths import PATHS, join, write_text

FORMAT: Literal["dmoe-scorer"] = "dmoe-scorer"
VERSION: Literal[1] = 1
FILE, TABLES, DENSE = "scorer.json", "tables.safetensors", "dense.safetensors"
ONNX, ONNX_DENSE, AOTI = "model.onnx", "dense.onnx", "dense.pt2"
PORTABLE = (ONNX, ONNX_DENSE, AOTI, f"{ONNX}.data", f"{ONNX_DENSE}.data")
"""Optional files for other runtimes. The `.data` files hold weights that do not fit into one ONNX file."""
MAX_BYTES = 16 << 20
INPUT_FILE = re.compile(r"inputs/manifest\.json|inputs/vocabulary/[^/\0]+\.parquet")
DTYPES = {"fp32": "F32", "fp16": "F16", "int8": "I8", "pq": "U8"}


Share = Annotated[float, Field(ge=0, le=1)]
_Described = TypeVar("_Described", bound=Strict)


class ScoredFeature(Strict):
    """A categorical feature with ids 0 .. cardinality - 1; with pooling, a row has any number of ids."""

    name: FeatureName
    cardinality: int = Field(ge=1, lt=2**31)
    pooling: Literal["none", "sum", "mean"] = "none"


class ScoredExpert(Strict):
    kind: Text
    options: dict[str, Any]
    table_set: int = Field(ge=0)


class Parity(Strict):
    """The largest differences between the answers of another runtime and those of the scorer.

    Attributes:
        runtime: name and version; for dense.pt2 also the CPU features that the file needs.
        rows: number of compared rows, with random ids and numbers.
        logit, probability: the largest differences.
    """

    runtime: Text
    rows: int = Field(ge=1)
    logit: float = Field(ge=0)
    probability: float = Field(ge=0)


class ScorerFile(Strict):
    """The content of scorer.json.

    Attributes:
        rows: number format of the table rows.
        schema_hash: schema hash in the manifest of the training data.
        shares: feature -> (share of rare values, share of missing values) in the training data; empty if an older dmoe exported it.
        files: name -> SHA-256.
        reads: `features` and `dense` as described by that manifest, to check data before it is scored; None if an older dmoe exported it.
        portable: file for another runtime -> its parity.
        card: the model card; None if an older dmoe exported the scorer, or if no card was made.
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
        """Whether the scorer includes the schema and vocabularies of the training data."""
        return any(INPUT_FILE.fullmatch(name) for name in self.files)

    @property
    def inputs(self) -> list[str]:
        """The names of all features that the model reads."""
        return [*(feature.name for feature in self.features), *self.dense]


def scale_of(name: str) -> str:
    """Name of the scales of a matrix of int8 rows."""
    return "scale" if name == "rows" else f"{name}_scale"


def codebook_of(name: str) -> str:
    """Name of the codebooks of a matrix of pq rows."""
    return "codebook" if name == "rows" else f"{name}_codebook"


def write_scorer_file(folder: str, content: ScorerFile) -> None:
    """Writes CARD.md, if there is a card, and scorer.json, the last file of an export."""
    if content.card:
        kinds = [one.kind for one in content.experts]
        write_text(join(folder, CARD), as_markdown(content.card, content.variant, content.step, content.rows, kinds))
    # An older dmoe can read the file if these fields are absent.
    absent = {name for name in ("reads", "portable", "card") if not getattr(content, name)}
    dumped = content.model_dump(mode="json", exclude=absent)
    write_text(join(folder, FILE), format_json(dumped, indent=1) + "\n")


def read_scorer_file(folder: str) -> ScorerFile:
    """Reads and checks scorer.json.

    Raises:
        UserError: the file is missing or of another version, or a field is wrong; names the field.
    """
    if not PATHS.exists(join(folder, FILE)):
        raise UserError(f"{folder}: no {FILE}: not an exported scorer; make one with dmoe export")
    return read_description(join(folder, FILE), "scorer", ScorerFile, "export it again")


def read_description(path: str, kind: str, model: type[_Described], advice: str) -> _Described:
    """Reads and checks a JSON file whose model has the fields `format` and `version`.

    Args:
        kind: what it describes, for messages.
        advice: what to do if it is damaged or of another version.
    """
    format, version = (model.model_fields[name].default for name in ("format", "version"))
    return checked(model.model_validate, read_document(path, MAX_BYTES, kind, format, version, advice), path, f"; {advice}")
