"""Parses `--env`, the environment variables of a job, without changing any byte of their values.

torchx would split the text at every '=' and ',', and drop a leading '=', spaces at the ends and empty quotes. The components therefore
take it as plain text, which is parsed here.
"""

import re
import shlex

from dmoe.errors import UserError, one_line, shown
from dmoe.json_text import parse_json

FORM = 'NAME=VALUE,NAME=VALUE or, where a value has ",NAME=" in it, JSON: \'{"NAME": "VALUE"}\''
_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_NEXT = re.compile(rf"[,;]\s*(?={_NAME}=)")
_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+-]+")
"""Values that no scheduler, template or shell changes."""


def parse_env(text: str) -> dict[str, str]:
    """Parses `NCCL_DEBUG=INFO,NCCL_IB_HCA==mlx5_0,mlx5_1`. A ',' or ';' before `NAME=` starts the next variable; all else is the value.

    A JSON object of strings can express every value.

    Raises:
        UserError: the text has another form, or a name is invalid or given twice.
    """
    if not text.strip():
        return {}
    pairs = _from_json(text) if text.lstrip().startswith("{") else [_pair(part) for part in _NEXT.split(text)]
    made: dict[str, str] = {}
    for name, value in pairs:
        if not re.fullmatch(_NAME, name):
            raise UserError(f"--env: '{one_line(name)}' is not the name of a variable: expected letters, digits and '_'")
        if name in made:
            raise UserError(f"--env: {name} is given twice")
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
        raise UserError(f"--env {name}={value}: for an empty value write {name}=, for two quotes use JSON; expected {FORM}")
    return name.strip(), value


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_plain(value: str) -> bool:
    """Whether every scheduler passes the value on unchanged. Slurm's --export cuts it at a comma; torchx and Kubernetes expand `$`."""
    return bool(_PLAIN.fullmatch(value))


def quote(text: str) -> str:
    """Quotes the text for the shell of the job, so that torchx's templates and Kubernetes, which come before the shell, expand nothing."""
    return shlex.quote(text).replace("$", "$''")


def join(words: list[str]) -> str:
    """As `shlex.join`, with `quote`."""
    return " ".join(map(quote, words))
