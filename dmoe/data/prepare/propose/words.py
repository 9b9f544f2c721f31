"""Word lists that tell the role of a column from its name."""

import re

LABELS = (
    "label target",
    "click clicked clicks clk isclick",
    "converted conversion purchased purchase bought installed install liked like response outcome attributed engaged y",
    "rating ratings stars",
)
"""Words in the name of a label, the best first."""
RANKS = {word: rank for rank, words in enumerate(LABELS) for word in words.split()}
RATINGS = RANKS["rating"]
TIMES = ("timestamp", "datetime", "time", "ts", "date", "at", "when", "hour", "day", "dt", "created", "unixtime")
"""Words in the name of a time column, the best first."""
WEIGHTS = frozenset(("weight", "weights", "w"))
USERS = ("user", "uid", "userid", "member", "customer", "visitor", "viewer", "person", "account", "client", "session")
"""Words in the name of a column by which GAUC may group, the best first."""
TOKENS = frozenset(
    re.findall(
        r"\w+",
        """id ids code zip zipcode postal postcode category cat type kind class group key hash ip sku cluster segment phone version pos
        position slot site app device user item ad adid campaign brand region city country state gender sex os browser language
        channel publisher advertiser creative model movie product page query store shop genre tag tags flag uid userid itemid
        hour weekday month year""",
    )
)
NUMBERS = frozenset(
    re.findall(
        r"\w+",
        """price amount amt cost bid count cnt num number age duration seconds secs minutes length len size width height score rate ratio
        pct percent share avg mean sum total income revenue distance lat lon lng latitude longitude views impressions visits temperature
        balance quantity qty ctr cpc cpm value days elapsed since history""",
    )
)


def words_of(name: str) -> list[str]:
    """The words of a column's name, in lower case.

    Example:
        >>> words_of("userID"), words_of("is_click"), words_of("ad.site")
        (['user', 'id'], ['is', 'click'], ['ad', 'site'])
    """
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return [one.lower() for one in re.split(r"[^\w]+|_", spaced) if one]


def label_rank(name: str) -> int | None:
    """The rank of a name as the name of a label, 0 is best; None if it is no such name."""
    words = words_of(name)
    return None if {"id", "time", "ts", "at"} & set(words) else min((RANKS[one] for one in words if one in RANKS), default=None)


def rank(name: str, of: tuple[str, ...]) -> int | None:
    """The index of the name's best word in `of`; None if it has none of them."""
    return min((of.index(one) for one in words_of(name) if one in of), default=None)
