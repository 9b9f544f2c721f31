"""The unit of a request, such as its user, which decides on the arm of an A/B test."""

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dmoe.errors import UserError, shown
from dmoe.serve.ab.split import Split

MAX_UNIT, MAX_REQUEST_ID = 1000, 200
REQUEST_ID = "x-request-id"


class NoUnit(UserError):
    """A request without a valid unit, or with several."""


def unit_of(split: Split, column: Callable[[str], Sequence[Any]], headers: Mapping[str, str], fields: Mapping[str, Any]) -> str:
    """The unit of a request, from where the split takes it; empty if the request has none and the split allows that.

    Args:
        column: name -> values of a column of the request's rows; empty if the column is missing.
        headers, fields: of the request.

    Raises:
        NoUnit: the request has none, several, or an invalid one.
    """
    source = split.unit
    if source.column:
        found = {unit_text(value, source.told) for value in column(source.column)} or {""}
        if len(found) > 1:
            raise NoUnit(f"{source.told}: rows of several units ({shown(sorted(found)[:3])}): a request is of one, send one each")
        (unit,) = found
    elif source.header:
        # Header values are decoded as Latin-1, but clients send UTF-8.
        unit = unit_text(headers.get(source.header, "").encode("latin-1"), source.told)
    else:
        unit = unit_text(fields.get(source.field or ""), source.told)
    if not unit and split.missing_unit == "refuse":
        raise NoUnit(f"{source.told}: the request has none, and the A/B test '{split.test}' asks for it")
    return unit


def unit_text(value: Any, where: str) -> str:
    """The text of a unit; empty if there is none. 17 and "17" are the same unit.

    Raises:
        NoUnit: the value is neither text nor an integer, or its text is too long or not printable.
    """
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise NoUnit(f"{where}: {shown(value)} is no UTF-8") from None
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | np.integer):
        raise NoUnit(f"{where}: {shown(value)}, expected text or a whole number")
    text = str(value)
    if len(text) > MAX_UNIT or not text.isprintable():
        raise NoUnit(f"{where}: {shown(text)}, expected at most {MAX_UNIT} printable characters")
    return text


def request_id(given: str | None) -> str:
    """The request id in ASCII that is valid in a header; a new random id if none is given."""
    return re.sub(r"[^!-~]", "_", given)[:MAX_REQUEST_ID] if given else uuid.uuid4().hex
