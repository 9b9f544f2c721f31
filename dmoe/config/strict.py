"""The one base of every typed file, and the one sentence that says what is wrong with such a file."""

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from dmoe.errors import UserError, nearest, one_line, shown
from dmoe.names import check_feature, check_split, check_text

FeatureName = Annotated[str, AfterValidator(check_feature)]
SplitName = Annotated[str, AfterValidator(check_split)]
Text = Annotated[str, AfterValidator(check_text)]
"""What a screen may show as it is."""
MOST_TOLD = 3
"""Mistakes of one file that are named; a damaged file may have one in every line."""
_Model = TypeVar("_Model")


class Strict(BaseModel):
    """A part of a file: unknown keys are refused, no value becomes another type, and every number is finite."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, validate_default=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _keys_are_known(cls, tree: Any) -> Any:
        for key in tree if isinstance(tree, dict) and cls.model_config["extra"] == "forbid" else ():
            if key not in cls.model_fields:
                hint = nearest(str(key), cls.model_fields)
                raise PydanticCustomError("unknown_key", "unknown key{hint}", {"key": str(key), "hint": hint})
        return tree


class Open(Strict):
    """As `Strict`, of a file that may say more than is read of it."""

    model_config = ConfigDict(extra="ignore")


def checked(validate: Callable[[Any], _Model], tree: Any, where: str, advice: str = "") -> _Model:
    """The typed form of a tree of plain data.

    Args:
        validate: such as the `model_validate` of a `Strict`.
        tree: what a file says.
        where: begins the message, such as the file's path.
        advice: ends the message, such as `; export it again`.

    Raises:
        UserError: a key or a value is wrong; names each of the first few.
    """
    try:
        return validate(tree)
    except ValidationError as error:
        raise UserError(f"{where}: {explain(error)}{advice}") from None


def explain(error: ValidationError) -> str:
    """A validation error in one sentence: `train.epochs: expected ..., found 0; model.expert: unknown key, did you mean 'experts'?`."""
    told: dict[str, str] = {}
    for detail in error.errors(include_url=False):
        key, what = _told(detail)
        # A union reports one error for each of its members.
        told.setdefault(key, what)
    first = [f"{key}: {what}" if key else what for key, what in list(told.items())[:MOST_TOLD]]
    return "; ".join(first) + (f"; and {len(told) - MOST_TOLD:,} more" if len(told) > MOST_TOLD else "")


def _told(detail: Any) -> tuple[str, str]:
    """The key of one pydantic error, and what is wrong with it."""
    context, kind = detail.get("ctx", {}), detail["type"]
    parts = [*detail["loc"], *([context["key"]] if kind == "unknown_key" else [])]
    key = ".".join(one_line(str(part), 80) for part in parts if not _is_label(part))
    message = one_line(detail["msg"].removeprefix("Value error, "), 300)
    if kind in ("value_error", "unknown_key"):
        return key, message
    message = message[:1].lower() + message[1:]
    if kind == "missing":
        return key, message
    quotes = "; put it in quotes" if kind == "string_type" and isinstance(detail["input"], (bool, int, float)) else ""
    return key, f"{message}, found {shown(detail['input'])}{quotes}"


def _is_label(part: Any) -> bool:
    """Whether a part of an error's place is pydantic's name of a union's member, and no key."""
    return isinstance(part, str) and (part in ("str", "[key]") or (part.endswith("]") and part.startswith(("list[", "dict[", "literal["))))
