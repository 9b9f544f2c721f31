"""Proposes a schema for a log from a sample, with the reasons as comments, and tries it on the sample."""

import math
import os
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dmoe.config.yaml_files import flow_yaml, parse_yaml
from dmoe.data.prepare.encode.encode_rows import encode
from dmoe.data.prepare.parse.front_ends import read_piece
from dmoe.data.prepare.propose.label import Chosen, choose_label
from dmoe.data.prepare.propose.leaks import tellers
from dmoe.data.prepare.propose.places import PLACES
from dmoe.data.prepare.propose.profile import Profile, profile, shown
from dmoe.data.prepare.propose.roles import Role, feature_name, group_of, parts_of_time, roles_of
from dmoe.data.prepare.propose.sample import Asked, Sample, joined, malformed
from dmoe.data.prepare.propose.shipped_fit import Fit, find_fit
from dmoe.data.prepare.propose.text_sample import read_sample
from dmoe.data.prepare.rejects import Reject
from dmoe.data.prepare.schema import Schema, parse_schema
from dmoe.data.prepare.source.raw_bytes import STDIN, find_paths, spool_start
from dmoe.errors import UserError
from dmoe.names import printable, quoted

MAX_BAD_SHARE = 0.001
"""The default of --max-bad-share of dmoe preprocess."""
Explained = tuple[dict[str, Any], dict[str, str]]
"""A schema as a dict, and the reasons by key, or by the name of a feature."""


def propose(inputs: Sequence[str], asked: Asked, label: str | None = None, positive: str | None = None, saved: str = "schema.yaml") -> str:
    """Proposes a schema as YAML text that preprocessing can read.

    Args:
        inputs: names, folders and globs, or `-` alone for standard input.
        label: the label column; None to find it.
        positive: the value of the label that means 1; None to find it.
        saved: name of the schema file in the command that the text shows.

    Raises:
        UserError: a file cannot be read, or the log does not determine the delimiter, the label, or the value that means 1.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder, open(f"{folder}/clicks.csv", "w") as log:
        ...     _ = log.write("click,site\\n" + "1,a\\n0,b\\n" * 9)
        ...     log.flush()
        ...     print(propose([log.name], Asked()).splitlines()[-1])
          - site  # 2 values, most frequent 'a' (50.0%)
    """
    sample = _sample(inputs, asked)
    profiles, form = [profile(sample, name) for name in sample.columns.column_names], dict(sample.form)
    header = form.get("header", True)
    fit = None if asked.columns else find_fit(profiles, header)
    if fit and fit.columns:
        profiles = [replace(one, name=name) for one, name in zip(profiles, fit.columns, strict=True)]
        form["columns"] = list(fit.columns)
    if fit and label is None:
        label, why = fit.label, f"as the schema {fit.names[0]} has it"
    name = sample.file.path
    chosen = choose_label(profiles, name, label, positive)
    if fit and label == fit.label:
        chosen = replace(chosen, why=why)
    columns = sample.columns.rename_columns([one.name for one in profiles])
    roles = roles_of(profiles, chosen.column, fit.roles if fit else {}, tellers(columns, chosen))
    tree, reasons = _tree(form, chosen, profiles, roles)
    if not tree["categorical"]:
        out = ", ".join(f"{quoted(one.name)} ({one.why})" for one in roles if one.kind == "out")
        also = f"; {sample.malformed}" * bool(sample.malformed)
        raise UserError(f"{name}: no column of tokens is there for a feature; left out: {out or 'none'}{also}")
    _type_whole_numbers(tree, {one.name: one for one in profiles})
    schema = parse_schema(tree, "the proposed schema")
    rejects, lines = _tried(sample, schema, fit)
    head = _head(sample, inputs, saved, rejects, lines, fit)
    text = "\n".join([*head, *_lines(tree, reasons, sample.notes), *_left_out(roles)]) + "\n"
    read = parse_schema(parse_yaml(text), "the proposed schema")
    assert read == schema, "the text says another schema than was tried"
    return text


def _sample(inputs: Sequence[str], asked: Asked) -> Sample:
    """A sample of standard input, or of evenly chosen files."""
    if list(inputs) == [STDIN]:
        with tempfile.TemporaryDirectory() as folder:
            return read_sample(spool_start(folder), STDIN, asked)
    if STDIN in inputs:
        raise UserError("'-' (standard input) must be the only input")
    paths = find_paths(list(inputs))
    step = max(len(paths) / PLACES, 1)
    chosen = [paths[int(number * step)] for number in range(min(len(paths), PLACES))]
    each = replace(asked, rows=max(asked.rows // len(chosen), 1))
    return joined([read_sample(path, path, each) for path in chosen])


def _tree(form: dict[str, Any], chosen: Chosen, profiles: Sequence[Profile], roles: Sequence[Role]) -> Explained:
    of = {one.name: one for one in profiles}
    label = of[chosen.column]
    reasons = {"label": f"{chosen.why}; {_values(label)}"}
    if label.missing:
        reasons["label"] += f"; {label.missing:,} rows have none, which are bad rows"
    tree = dict(form)
    tree["label"] = chosen.column if chosen.positive is None else {"column": chosen.column, "positive": chosen.positive}
    time = next((one for one in roles if one.kind == "time"), None)
    if time:
        tree["time"], reasons["time"] = time.tree, f"{time.why}; {_values(time.profile)}"
    if weight := next((one for one in roles if one.kind == "weight"), None):
        tree["weight"], reasons["weight"] = weight.name, weight.why
    group, others = group_of(roles)
    if group is not None:
        tree["group"] = group
        reasons["group"] = "for GAUC, by its name" + f"; or {shown(others)}" * bool(others)
    missing, taken_texts = _missing(profiles, [chosen.column, *(one.name for one in roles if one.kind not in ("categorical", "out"))])
    if missing:
        tree["missing"] = list(missing)
        reasons["missing"] = "; ".join(f"{shown([text])} in {shown(names[:4])}" for text, names in missing.items())
    tree["dense"], tree["categorical"] = [], []
    taken: set[str] = set()
    for one in roles:
        if one.kind not in ("dense", "categorical"):
            continue
        made = feature_name(one.name, taken)
        taken.add(made)
        column = {"column": one.name} if made != one.name else {}
        tree[one.kind].append({"name": made} | column | {key: value for key, value in one.tree.items() if key not in ("name", "column")})
        numbers = [text for text, names in taken_texts.items() if one.name in names]
        why = f"{shown(numbers)} is a value here, since it is one of another column" if numbers else ""
        reasons[f"{one.kind}:{made}"] = "; ".join(part for part in (_values(one.profile), one.why, why) if part)
    for part in parts_of_time(time, sorted(taken)) if time else ():
        tree["categorical"].append(part)
        reasons[f"categorical:{part['name']}"] = "of the time"
    if not tree["dense"]:
        del tree["dense"]
    return tree, reasons


def _missing(profiles: Sequence[Profile], exact: Sequence[str]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """(texts that mean "no value" -> their columns; other candidates -> their columns). A text is only a candidate if it is a value of one
    of the columns `exact`, because `missing` of a schema holds for all columns."""
    found: dict[str, list[str]] = {}
    for one in profiles:
        for text in one.no_value:
            found.setdefault(text, []).append(one.name)
    taken = {text for one in profiles if one.name in exact for text in found if one.has(text)}
    return {text: names for text, names in found.items() if text not in taken}, {text: found[text] for text in sorted(taken)}


def _type_whole_numbers(tree: dict[str, Any], of: dict[str, Profile]) -> None:
    """Adds `type: int` to dense features if the schema can then be read by the parser of typed text, which is several times as fast."""
    dense = [one | {"type": "int"} for one in tree.get("dense", [])]
    if all(of[one.get("column", one["name"])].readable_as("number") for one in dense):
        typed = tree | ({"dense": dense} if dense else {})
        if parse_schema(typed, "the proposed schema").typed_columns:
            tree |= typed


def _values(one: Profile) -> str:
    """A short description of the values of a column."""
    if one.is_time:
        low, high = min(one.texts()), max(one.texts())
        return f"{low[:19]} .. {high[:19]}"
    said = [f"{one.distinct:,} value{'s' * (one.distinct != 1)}"]
    if one.is_number and one.distinct > 2:
        said.append(f"{one.numbers.min():.12g} .. {one.numbers.max():.12g}, median {one.quantile(0.5):.12g}")
    if one.distinct:
        said.append(f"most frequent {shown(one.texts(1))} ({one.counts[0] / one.given:.1%})")
    if one.missing:
        said.append(f"{one.missing / one.rows:.1%} missing")
    return ", ".join(said)


def _tried(sample: Sample, schema: Schema, fit: Fit | None) -> tuple[list[Reject], int]:
    """(malformed rows of the sample, number of its rows) if it is read with the schema."""
    rejects: list[Reject] = []
    lines = 0
    for file, piece, number in sample.pieces:
        columns = fit.columns if fit and fit.columns else file.columns
        read = encode(read_piece(replace(file, columns=columns, used=tuple(schema.used())), schema, piece, number), schema)
        rejects += read.rejects if number else [replace(one, line=0) for one in read.rejects]
        lines += read.lines
    return rejects, lines


def _head(sample: Sample, inputs: Sequence[str], saved: str, rejects: list[Reject], lines: int, fit: Fit | None) -> list[str]:
    named_file = "log" if list(inputs) == [STDIN] else os.path.basename(sample.file.path).split(".")[0] or "log"
    share = len(rejects) / max(lines, 1)
    command = ["dmoe", "preprocess", "log", "--schema", saved, "--input", *inputs, "--output", f"data/{named_file}"]
    if share > MAX_BAD_SHARE:
        command += ["--max-bad-share", f"{min(math.ceil(share * 1500) / 1000, 1):g}"]
    head = [
        f"Proposed by dmoe schema from {sample.rows:,} rows of {sample.file.path} ({sample.told}). Cardinalities and",
        "shares are the sample's. Read the reasons, and change what is wrong:",
        f"  {shlex.join(command)}",
    ]
    if said := malformed(rejects, lines):
        head.append(said)
    if fit:
        also = f" (or {', '.join(fit.names[1:])})" if fit.names[1:] else ""
        first = fit.names[0]
        head.append(f"dmoe ships a schema for a log with these columns: --schema {first}{also}; dmoe schema --show {first} prints it.")
    return [f"# {printable(one)}" for one in head]


def _lines(tree: dict[str, Any], reasons: dict[str, str], notes: dict[str, str]) -> list[str]:
    lines = []
    for key, value in tree.items():
        if key in ("dense", "categorical"):
            lines.append(f"{key}:")
            for one in value:
                short = one["name"] if list(one) == ["name"] else one
                lines.append(_commented(f"  - {flow_yaml(short)}", reasons.get(f"{key}:{one['name']}", "")))
        else:
            lines.append(_commented(f"{key}: {flow_yaml(value)}", notes.get(key) or reasons.get(key, "")))
    return lines


def _left_out(roles: Sequence[Role]) -> list[str]:
    out = [one for one in roles if one.kind == "out"]
    return ["# Left out:", *(f"#   {flow_yaml(one.name)}: {printable(one.why)}" for one in out)] if out else []


def _commented(line: str, reason: str) -> str:
    return f"{line}  # {printable(reason)}" if reason else line
