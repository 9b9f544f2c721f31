"""How commands end."""

import errno

import pytest

from dmoe.errors import UserError, first_line, nearest, run_command


def _raise(error):
    raise error


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UserError("day_3.tsv:88: bad"), 2, "tool: day_3.tsv:88: bad\n"),
        (KeyboardInterrupt(), 130, "tool: interrupted\n"),
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), 2, "tool: no space left on device: /x/y\n"),
    ],
)
def test_a_users_mistake_is_one_line(capsys, error, code, message):
    assert run_command("tool", lambda: _raise(error)) == code
    assert capsys.readouterr().err == message


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run_command("tool", lambda: 1 / 0)


def test_exit_code_of_main():
    assert run_command("tool", lambda: None) == 0
    assert run_command("tool", lambda: 1) == 1


def test_nearest():
    assert nearest("expert", ["experts", "gate"]) == ", did you mean 'experts'?"
    assert nearest("zzz", ["b", "a"]) == ", expected one of a, b"


def test_first_line():
    assert first_line(ValueError("\n  a thing\nmore")) == "a thing"
    assert first_line(OSError(" ")) == "OSError"
    assert first_line(ValueError("abcdef"), 3) == "abc"
