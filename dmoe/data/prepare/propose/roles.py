"""Decides the role of each column of a sample (time, weight, number, token, bag, or left out), and gives the reason."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow.compute as pc

from dmoe.data.prepare.propose.profile import HEX_DIGITS, Profile, shown
from dmoe.data.prepare.propose.time_formats import find_format, hours_and_days, why_not
from dmoe.data.prepare.propose.words import NUMBERS, TIMES, TOKENS, USERS, WEIGHTS, rank, words_of
from dmoe.names import LABEL, RESERVED, printable

SEPARATORS = "|;,^\x02\x03 "
"""Separators of tokens in one text, in the order in which they are tried."""
MANY_TOKENS = 20
"""Longer bags are cut to this many tokens, since they would cost training time."""
FEW = 10
"""A column of whole numbers with fewer distinct values holds tokens, unless its name says otherwise."""
ENOUGH = 1000
"""Least values that show how often tokens repeat."""


@dataclass(frozen=True)
class Role:
    """The role of a column.

    Attributes:
        kind: dense, categorical, time, weight, or out (left out of the schema).
        tree: the feature, or the time, as a dict of schema keys.
    """

    profile: Profile
    kind: str
    why: str
    tree: dict[str, Any]

    @property
    def name(self) -> str:
        return self.profile.name


def roles_of(profiles: Sequence[Profile], label: str, known: Mapping[str, Any], tell: Mapping[str, str]) -> list[Role]:
    """The roles of all columns except the label.

    Args:
        known: (kind, tree) of the columns that a shipped schema knows.
        tell: columns that leak the label (dmoe.data.prepare.propose.leaks), with the reason.
    """
    rest = [one for one in profiles if one.name != label]
    time = _time_of([one for one in rest if one.name not in tell])
    roles = []
    for one in rest:
        if one.name in tell:
            roles.append(Role(one, "out", tell[one.name], {}))
        elif time and one.name == time.name:
            roles.append(time)
        elif one.name in known and one.distinct and not one.most_items:
            kind, tree = known[one.name]
            roles.append(Role(one, kind, "", tree))
        else:
            roles.append(_role_of(one))
    weights = [one for one in roles if one.kind == "weight"]
    if len(weights) > 1:
        extra = {one.name for one in weights[1:]}
        roles = [replace(one, kind="out", why=f"a weight, as '{weights[0].name}' is") if one.name in extra else one for one in roles]
    return roles


def _time_of(profiles: Sequence[Profile]) -> Role | None:
    """The time column: among the columns that hold times, the one whose name fits best."""
    found: list[tuple[int, int, Role]] = []
    for one in profiles:
        place = rank(one.name, TIMES)
        formats = find_format(one, place is not None)
        if len(formats) == 1:
            order = len(TIMES) if place is None else place
            found.append((order, -one.distinct, Role(one, "time", "", {"column": one.name, "format": formats[0]})))
    best = min(found, key=lambda one: one[:2], default=(0, 0, None))[2]
    if best is None:
        return None
    others = [one.name for _, _, one in found if one is not best]
    named = rank(best.name, TIMES) is not None
    why = "by its name and values" if named else "by its values"
    return replace(best, why=why + f"; other times: {shown(others)}" * bool(others))


def _role_of(one: Profile) -> Role:
    def out(why: str) -> Role:
        return Role(one, "out", why, {})

    words = set(words_of(one.name))
    if one.unread:
        return out(f"{one.unread}; make columns of what it holds")
    if not one.distinct:
        return out("no row has a value")
    if one.distinct == 1 and not one.most_items:
        return out(f"the same in every row: {shown(one.texts())}" + f", or missing ({one.missing / one.rows:.1%})" * bool(one.missing))
    if one.is_time:
        return out("a time beside the time column")
    formats = find_format(one, rank(one.name, TIMES) is not None)
    if formats:
        return out(
            "a time beside the time column" if len(formats) == 1 else f"a time, but its values do not tell {' from '.join(formats[:2])}"
        )
    if why := why_not(one):
        return out(why)
    if one.most_items:
        return _bag(one, None)
    if one.is_number and words & WEIGHTS and bool((one.numbers > 0).all()) and not one.missing:
        return Role(one, "weight", "by its name; all are above 0", {})
    if one.is_number:
        return _number(one, words)
    if _has_decimal_commas(one):
        return _token(one, "numbers with a decimal comma, which are tokens here: write a point in the log to have them as numbers")
    if one.unique:
        return out("another value in every row: an id of the row, or free text")
    if separator := _separator(one):
        return _bag(one, separator)
    return _token(one)


def _number(one: Profile, words: set[str]) -> Role:
    if words & TOKENS and one.is_whole:
        return _numbered_token(one, "whole numbers, and its name says ids")
    if words & NUMBERS and one.distinct > 2:
        return _dense(one, "numbers, and its name says so")
    if not one.is_whole:
        return _dense(one, "numbers with a fraction")
    if one.distinct < FEW:
        return _numbered_token(one, f"whole numbers, but {one.distinct} of them")
    if _look_like_counts(one):
        return _dense(one, "whole numbers that look like counts: small ones are frequent, and none between them is left out")
    return _numbered_token(one, "whole numbers that do not look like counts")


def _numbered_token(one: Profile, why: str) -> Role:
    if one.unique:
        return Role(one, "out", "another whole number in every row: an id of the row", {})
    return _token(one, why)


def _dense(one: Profile, why: str) -> Role:
    transform, reason = "standardise", ""
    spread = one.quantile(0.99) - one.quantile(0.01)
    if (spread > 0 and abs(one.mean - one.quantile(0.5)) > 0.05 * spread) or one.quantile(0.99) > 50 * max(abs(one.quantile(0.5)), 1):
        transform, reason = "log1p", ", with a long tail"
    return Role(one, "dense", why + reason, {"name": one.name, "transform": transform})


def _token(one: Profile, why: str = "") -> Role:
    tree: dict[str, Any] = {"name": one.name}
    if one.is_canonical:
        tree["type"] = "int"
    elif one.readable_as("hex") and one.width == HEX_DIGITS:
        tree["type"], why = "hex", f"{HEX_DIGITS} hex digits each"
    if one.distinct > 0.5 * one.given and one.given >= ENOUGH:
        why += f"{'; ' * bool(why)}most values come once, so few earn an id"
    return Role(one, "categorical", why, tree)


def _bag(one: Profile, separator: str | None) -> Role:
    tree: dict[str, Any] = {"name": one.name}
    if separator:
        tree["separator"] = separator
        items = pc.count_substring(one.values, separator).to_numpy() + 1
        most, mean = int(items.max()), float(np.average(items, weights=one.counts))
        why = f"up to {most} tokens in a text, {mean:.2g} on average"
    else:
        most = one.most_items
        why = f"lists of up to {most}, {one.mean_items:.2g} on average"
    tree["pooling"] = "mean"
    if most > MANY_TOKENS:
        tree["max_values"], why = MANY_TOKENS, f"{why}; the first {MANY_TOKENS} are kept"
    return Role(one, "categorical", why, tree)


def _separator(one: Profile) -> str | None:
    """The separator, if texts consist of tokens that repeat in other texts; None if each text is one token."""
    for separator in SEPARATORS:
        inside = pc.match_substring(one.values, separator).to_numpy(zero_copy_only=False)
        if one.counts[inside].sum() < 0.1 * one.given:
            continue
        parts = pc.split_pattern(one.values, separator)
        if len(np.unique(pc.list_value_length(parts).to_numpy())) < 2:
            continue
        counted = pc.list_flatten(parts).value_counts()
        items, counts = counted.field("values"), counted.field("counts").to_numpy()
        pattern = r"^[\w.-]*\d[\w.-]*$" if separator == " " else r"^[\w.-]+$"
        plain = pc.match_substring_regex(items, pattern).to_numpy(zero_copy_only=False)
        given = pc.not_equal(items, "").to_numpy(zero_copy_only=False)
        thousands = separator == "," and pc.all(pc.match_substring_regex(one.values, r"^-?\d{1,3}(,\d{3})*$")).as_py()
        total = counts[given].sum()
        again = counts[given & plain & (counts > 1)].sum()
        if not thousands and counts[given & plain].sum() > 0.9 * total and again > 0.5 * total:
            return separator
    return None


def _has_decimal_commas(one: Profile) -> bool:
    """Whether all texts are numbers such as 0,98 and 1.204,5; three digits behind every comma are thousands."""
    texts = [pc.match_substring_regex(one.values, pattern) for pattern in (r"^-?(\d+|\d{1,3}(\.\d{3})+),\d+$", r",\d{3}$")]
    return bool(pc.all(texts[0]).as_py() and not pc.all(texts[1]).as_py())


def _look_like_counts(one: Profile) -> bool:
    """Whether whole numbers look like counts: small ones are frequent, and between the smallest and the median hardly any is absent. Ids
    have gaps."""
    low, median = one.numbers.min(), one.quantile(0.5)
    if low > 1 or one.mean < 1.3 * median:
        return False
    below = one.numbers <= median
    drawn, room = float(one.counts[below].sum()), median - low + 1
    expected = room * -np.expm1(-drawn / room)
    return bool(below.sum() >= 0.4 * expected)


def group_of(roles: Sequence[Role]) -> tuple[str | None, list[str]]:
    """The column by which GAUC should group, and other candidates."""
    found = []
    for one in roles:
        place = rank(one.name, USERS)
        fits = one.kind == "categorical" and "pooling" not in one.tree and 2 < one.profile.distinct < 0.9 * one.profile.given
        if place is not None and fits:
            found.append((place, one.name))
    found.sort()
    return (found[0][1], [name for _, name in found[1:]]) if found else (None, [])


def parts_of_time(time: Role, taken: Sequence[str]) -> list[dict[str, Any]]:
    """Features that are parts of the time, if the sample has several values of them."""
    hours, days = hours_and_days(time.profile, str(time.tree["format"]))
    wanted = [("hour", hours > 1), ("weekday", days > 1)]
    return [{"name": part if part not in taken else f"{part}_of_time", "part": part} for part, several in wanted if several]


def feature_name(column: str, taken: set[str]) -> str:
    """A feature name for a column: the name of the column if it is allowed and not taken."""
    made = printable(column)
    if made == LABEL or made.startswith(RESERVED):
        made = f"feature_{made.lstrip(RESERVED)}"
    while made in taken:
        made += "_"
    return made
