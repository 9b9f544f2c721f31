"""The columns of Criteo's click logs: their names, their order in a line, and the features that are made from them.

A raw line is `label, I1..I13, C1..C26`, tab-separated, without a header. A data set has 13 dense features and 39 categorical
ones: the 26 token columns, then one bucket feature for each integer column.
"""

import math

INTEGERS = tuple(f"I{i}" for i in range(1, 14))
TOKENS = tuple(f"C{i}" for i in range(1, 27))
COLUMNS = INTEGERS + TOKENS
BUCKETS = tuple(f"{name}_bucket" for name in INTEGERS)
CATEGORICAL = TOKENS + BUCKETS
LABEL = "label"
FIELDS = (LABEL, *COLUMNS)

DENSE_TRANSFORM = "sign(x) * log1p(abs(x))"
BUCKET_OFFSET = 3
"""Added to the buckets of v > 2, so that none of them equals a v <= 2, which is its own bucket."""


def dense(value: int) -> float:
    """The dense feature of an integer: sign(x) * ln(1 + |x|). A missing integer is 0.0."""
    return math.copysign(math.log1p(abs(value)), value) if value else 0.0


def bucket(value: int) -> int:
    """The token of an integer's bucket: v itself where v <= 2, else 3 + floor(ln(v)^2), which is 4 at least.

    The formula is that of the Criteo_x4 protocol; the offset keeps its buckets (1, 2, ...) apart from the values 1 and 2.
    """
    return value if value <= 2 else BUCKET_OFFSET + math.floor(math.log(value) ** 2)
