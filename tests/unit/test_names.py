"""Names as they are accepted, stored in files and shown."""

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmoe import names
from dmoe.config.config import Config, override_key, parse_config, split_override
from dmoe.errors import UserError, nearest, run_command

ESCAPE = "\x1b]0;title\x07\x1b[31m"


@given(st.text(min_size=1, max_size=400))
def test_different_names_have_different_files_and_a_short_one_can_be_read_back(name):
    try:
        names.check_feature(name)
    except ValueError:
        return
    file = names.file_name(name)
    assert "/" not in file
    assert file not in (".", "..")
    assert len(f"{file}.safetensors".encode()) <= 255
    if "%7E" not in file:
        assert re.sub("%(2F|25|2E|7E)", lambda found: chr(int(found[1], 16)), file) == name
    else:
        assert len(name.encode()) > 200


@given(st.lists(st.text("./%~257EF", min_size=1, max_size=6), min_size=2, max_size=20, unique=True))
def test_names_of_the_escape_s_own_signs_stay_apart(some):
    assert len({names.file_name(name) for name in some}) == len(some)


def test_long_names_stay_apart_and_plain_ones_stay_as_they_are():
    assert names.file_name("x" * 300) != names.file_name("x" * 299)
    for plain in ("C1", "I1_bucket", "site id", "gerät=art", "C1*", "user.id", "100%", "x%20y", "x" * 243):
        assert names.file_name(plain) == plain


@pytest.mark.parametrize("name", ["", "a\x1b[31m", "a\nb", "a\x00", "\u202ea", "a\u2028b", "a\x9bb", "label", "@weight", "\ud800"])
def test_what_no_feature_is_named(name):
    with pytest.raises(ValueError, match="feature") as refused:
        names.check_feature(name)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("name", ["a/b", "..", "type", "😀", "👩\u200d💻", "می\u200cروم", "a\u00a0b", "labels", "x" * 10_000, "=1+1"])
def test_what_a_feature_may_be_named(name):
    assert names.check_feature(name) == name


@pytest.mark.parametrize(
    "name", ["", "..", "a/b", "/a", "a b", "-a", ".work", "vocabulary", "rejects", "export.json", "é", "a\n", "x" * 65]
)
def test_what_no_split_is_named(name):
    with pytest.raises(ValueError, match="split"):
        names.check_split(name)


@given(st.text(st.characters()))
def test_no_control_character_is_shown(text):
    shown = names.printable(text)
    shown.encode()
    assert not re.search("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]", shown)
    if text.isprintable():
        assert shown == text


def fail(message: str) -> None:
    raise UserError(message)


def test_a_message_and_a_hint_are_one_printable_line(capsys):
    assert run_command("tool", lambda: fail(f"file {ESCAPE}\nforged: line")) == 2
    assert capsys.readouterr().err == "tool: file \\x1b]0;title\\x07\\x1b[31m\\nforged: line\n"
    assert "\x1b" not in nearest("zzz", [f"a{ESCAPE}"])
    assert "\x1b" not in nearest(f"a{ESCAPE}", [f"a{ESCAPE}b"])
    names.show(f"a{ESCAPE}\nb")
    assert capsys.readouterr().out == "a\\x1b]0;title\\x07\\x1b[31m\nb\n"


def test_a_hint_is_short_however_many_names_there_are():
    assert len(nearest("zzz", [f"feature {number}" for number in range(20_000)])) < 600
    assert len(nearest("z" * 10**6, ["y" * 10**6, "x"])) < 600


@pytest.mark.parametrize("text", ["=1+2", "+1", "@SUM(A1)", "-2+3", "\t=1", "\r=1"])
def test_a_formula_is_text_in_csv(text):
    out = io.StringIO()
    csv.writer(out).writerow([names.cell(text), names.cell("plain"), names.cell("-")])
    first, plain, dash = next(csv.reader(io.StringIO(out.getvalue())))
    assert first[0] not in "=+-@\t\r"
    assert (plain, dash) == ("plain", "-")


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), min_size=1, max_size=4), st.text(max_size=9))
def test_a_key_of_any_names_is_read_back(keys, value):
    assert split_override(f"{override_key(*keys)}={value}") == (keys, value)


def test_an_override_names_a_feature_with_dots_and_equals_signs():
    given = ['sharding.tables."user.id".types=[row_wise]', 'sharding.tables."a=b".min_partition=4', " train.epochs =3"]
    config = parse_config("", "x", given)
    assert list(config.sharding.tables) == ["user.id", "a=b"]
    assert config.train.epochs == 3
    for wrong in ('sharding.tables."user.id.types=[row_wise]', "=3", "a..b=1", "train.epochs", 'a"b=1'):
        with pytest.raises(UserError, match=r"^--set .*key=value"):
            parse_config("", "x", [wrong])


def test_a_variant_that_a_terminal_would_act_on_is_refused():
    with pytest.raises(UserError, match="variant") as refused:
        parse_config('variant: "a\\e[31m"', "x.yaml")
    assert "\x1b" not in str(refused.value)
    assert Config(variant="D-MoE, größer 😀").variant
