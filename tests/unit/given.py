"""Every field of a file that a user may be given, in turn of another type, huge, nested, missing or misspelt: one line, or sound.

Sound means that whatever reads the file goes on with it: its consumers run on what was accepted.
"""

import json
from pathlib import Path

import pytest

from dmoe.errors import UserError

NESTED = "[" * 50 + "]" * 50
ODD = [
    *("null", "true", "0", "-1", "1.5", "1e300", "1e999", "9" * 18, "9" * 30, "9" * 6000),
    *('""', '"x"', '"../../etc/passwd"', '"a\\nb"', '"s3://far/x"', '"\\u0000"', '"\\ud800"', json.dumps("long " * 400)),
    *("[]", "{}", '{"a": 1}', "[1, 2]", NESTED, "[" * 70 + "]" * 70),
]
MARK = "@@odd@@"


def places(tree, path=()):
    """Paths to every node; of a list only to the first two."""
    yield path
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree[:2]) if isinstance(tree, list) else ():
        yield from places(value, (*path, key))


def changed(tree, path, value):
    tree = json.loads(json.dumps(tree))
    node = tree
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return tree


def mutations(tree, share, under=()):
    """(what was done, text) for every place and one in `share` of the odd values, and for every key that is missing or misspelt."""
    for number, path in enumerate(list(places(tree))):
        if path[: len(under)] != under or not path:
            continue
        text = json.dumps(changed(tree, path, MARK))
        for odd in ODD[number % share :: share]:
            yield f"{path} = {odd[:40]}", text.replace(json.dumps(MARK), odd)
        if isinstance(path[-1], str):
            whole = json.loads(json.dumps(tree))
            node = whole
            for key in path[:-1]:
                node = node[key]
            value = node.pop(path[-1])
            yield f"{path} is missing", json.dumps(whole)
            node[f"{path[-1]}\x1b[31m"] = value
            yield f"{path} is misspelt", json.dumps(whole)


def outcome(read):
    """None where it is accepted, else the message."""
    try:
        read()
    except UserError as error:
        return str(error)
    return None


def hold(share, tree, write, read, under=()):
    """Every mutation is refused in one line, or sound."""
    accepted, refused, wrong = 0, 0, []
    write(json.dumps(tree))
    assert outcome(read) is None, outcome(read)
    for what, text in mutations(tree, share, under):
        write(text)
        try:
            message = outcome(read)
        except Exception as error:
            wrong.append(f"{what}: {type(error).__name__}: {str(error)[:200]}")
            continue
        accepted, refused = accepted + (message is None), refused + (message is not None)
        if message is not None and not (message.isprintable() and len(message) < 1000):
            wrong.append(f"{what}: {message[:300]!r}")
    assert not wrong, "\n".join([f"{len(wrong)} of {accepted + refused + len(wrong)}", *wrong[:10]])
    # A search that is refused always, or never, would show nothing.
    assert min(accepted, refused) > 0


def writer(path: Path):
    return lambda text: path.write_text(text)


SHARES = pytest.mark.parametrize("share", [5, pytest.param(1, marks=pytest.mark.slow)], ids=["some", "all"])
"""One in so many of the odd values, in turn from place to place."""
