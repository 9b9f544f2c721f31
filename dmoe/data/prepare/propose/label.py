"""Finds the label column and the value that means 1. If the log does not determine them, the user is asked; nothing is guessed."""

from collections.abc import Sequence
from dataclasses import dataclass

from dmoe.data.prepare.encode.labels import LABELS, NUMBER
from dmoe.data.prepare.propose.profile import Profile, shown
from dmoe.data.prepare.propose.words import RATINGS, label_rank
from dmoe.errors import UserError, nearest
from dmoe.names import quoted

YES = frozenset(("1", "1.0", "true", "yes", "y", "t", "pos", "positive", "click", "clicked", "converted", "conversion", "win", "buy"))
NO = frozenset(("0", "0.0", "-1", "-1.0", "false", "no", "n", "f", "neg", "negative", "none", "no_click", "noclick", "loss"))
MOST_LEVELS = 20
"""Most distinct values of a rating."""


@dataclass(frozen=True)
class Chosen:
    """The label. `positive` is the value that means 1; None if the values are 0 and 1."""

    column: str
    positive: str | None
    why: str


def choose_label(profiles: Sequence[Profile], name: str, column: str | None, positive: str | None) -> Chosen:
    """Chooses the label.

    Args:
        name: how messages name the file.
        column, positive: given by the user; None to find them.

    Raises:
        UserError: no column, or more than one, can be the label; or it is not clear which value means 1.
    """
    of = {one.name: one for one in profiles}
    if column is not None:
        if column not in of:
            raise UserError(f"--label: no column {quoted(column)} in {name}{nearest(column, of)}")
        return _with_positive(of[column], name, positive, "--label")
    binary = [one for one in profiles if _is_binary(one)]
    two = [one for one in binary if one.distinct == 2]
    fit = [*binary, *(one for one in profiles if _is_rating(one))]
    named = sorted((rank, one.name) for one in fit if (rank := label_rank(one.name)) is not None)
    best = [one for rank, one in named if rank == named[0][0]]
    if len(best) == 1:
        others = [one.name for one in two if one.name != best[0]]
        also = f"; other columns of two values: {shown(others)}" * bool(others)
        return _with_positive(of[best[0]], name, positive, f"by its name{also}")
    plain = [one for one in two if _positive(one) is not None]
    if not best and len(plain) == 1:
        return _with_positive(plain[0], name, positive, "the only column of two such values")
    found = [of[one] for one in best] or plain or two or [one for one in profiles if _is_rating(one)]
    values = [f"{quoted(one.name)} ({one.distinct} values: {shown(one.texts(3))}{', ...' * (one.distinct > 3)})" for one in found[:8]]
    what = (
        f"which column is the label? It could be {', '.join(values)}" if found else f"no column has two values, as a label; {_columns(of)}"
    )
    raise UserError(f"{name}: {what}; say so with --label COLUMN")


def _columns(of: dict[str, Profile]) -> str:
    names = [f"{quoted(one.name)} ({one.distinct:,} values)" for one in list(of.values())[:8]]
    return f"its columns are {', '.join(names)}{', ...' * (len(of) > 8)}"


def _with_positive(one: Profile, name: str, positive: str | None, why: str) -> Chosen:
    if one.most_items or one.is_time or not one.distinct:
        what = "has no values" if not one.distinct else "holds lists" if one.most_items else "holds times"
        raise UserError(f"{name}: the label {quoted(one.name)} {what}, expected two values")
    if positive is not None:
        return Chosen(one.name, positive, why + f"; {shown([positive])} is 1 by --positive")
    found = _positive(one)
    if found is not None:
        return Chosen(one.name, found or None, why)
    if _is_rating(one):
        # The highest rating, as the log writes it.
        best = max(one.texts(), key=float)
        return Chosen(one.name, best, why + f"; of its {one.distinct} values the highest is 1 and all others are 0: change that if need be")
    values = f"{shown(one.texts(6))}{', ...' * (one.distinct > 6)}"
    raise UserError(f"{name}: which value of the label {quoted(one.name)} is 1? It has {values}; say so with --positive VALUE")


def _positive(one: Profile) -> str | None:
    """The value that means 1; empty if the values are 0 and 1; None if it is not clear."""
    if one.most_items or one.is_time or not 1 <= one.distinct <= 2:
        return None
    texts = one.texts()
    if all(text.encode() in LABELS for text in texts):
        return ""
    yes = [text for text in texts if text.casefold() in YES]
    no = [text for text in texts if text.casefold() in NO]
    if len(texts) == 2 and len(yes) == len(no) == 1:
        return yes[0]
    return None


def _is_binary(one: Profile) -> bool:
    return not one.most_items and not one.is_time and (one.distinct == 2 or _positive(one) is not None)


def _is_rating(one: Profile) -> bool:
    return (
        2 < one.distinct <= MOST_LEVELS
        and label_rank(one.name) == RATINGS
        and one.is_number
        and all(NUMBER.fullmatch(text) for text in one.texts())
    )
