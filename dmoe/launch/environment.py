"""`--env`: the variables of a job's processes, to the byte.

torchx reads a `Dict` by splitting it at every '=' and ',', and drops an '=' at a value's begin, spaces at its ends and quotes that hold
nothing. The components therefore take the text and read it here.
"""

import re
import shlex

from dmoe.errors import UserError, one_line, shown
from dmoe.json_text import parse_json

FORM = 'NAME=VALUE,NAME=VALUE or, where a value has ",NAME=" in it, JSON: \'{"NAME": "VALUE"}\''
_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_NEXT = re.compile(rf"[,;]\s*(?={_NAME}=)")
_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+-]+")
"""What no scheduler, template or shell changes."""


def parse_env(text: str) -> dict[str, str]:
    """Reads `NCCL_DEBUG=INFO,NCCL_IB_HCA==mlx5_0,mlx5_1`: a ',' or ';' before `NAME=` begins the next variable, all else is the value.

    JSON, an object of texts, says any value.

    Raises:
        UserError: not of that form, or a name that is none or stands twice.
    """
    if not text.strip():
        return {}
    pairs = _from_json(text) if text.lstrip().startswith("{") else [_pair(part) for part in _NEXT.split(text)]
    made: dict[str, str] = {}
    for name, value in pairs:
        if not re.fullmatch(_NAME, name):
            raise UserError(f"--env: '{one_line(name)}' is no variable's name: expected letters, digits and '_'")
        if name in made:
            raise UserError(f"--env: {name} stands twice")
        if not isinstance(value, str) or "\0" in value or not _is_utf8(value):
            raise UserError(f"--env: {name} is {shown(value)}: expected text in UTF-8, without a NUL")
        made[name] = value
    return made


def _from_json(text: str) -> list[tuple[str, object]]:
    try:
        tree: dict[str, object] = parse_json(text)
    except ValueError as error:
        raise UserError(f"--env {one_line(text)}: not JSON ({error}); expected {FORM}") from None
    return list(tree.items())


def _pair(part: str) -> tuple[str, str]:
    name, equals, value = part.partition("=")
    if not equals:
        raise UserError(f"--env {one_line(part)}: expected {FORM}")
    if value in ("''", '""'):
        raise UserError(f"--env {name}={value}: an empty value is {name}= and one of two quotes is JSON's; expected {FORM}")
    return name.strip(), value


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_plain(value: str) -> bool:
    """Whether every scheduler hands the value on as it is: Slurm's --export ends it at a comma, torchx and Kubernetes fill in `$`."""
    return bool(_PLAIN.fullmatch(value))


def quote(text: str) -> str:
    """The text as a word of the job's shell; torchx's templates and Kubernetes, which come before the shell, find nothing to fill in."""
    return shlex.quote(text).replace("$", "$''")


def join(words: list[str]) -> str:
    """As `shlex.join`, with `quote`."""
    return " ".join(map(quote, words))
