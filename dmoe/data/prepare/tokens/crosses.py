"""Crosses of features: the tokens of a row in two or more columns, joined to one token.

The token of a cross is text: the tokens of its parts with `|` between them. In a part, `|` and `\\` are escaped by `\\`, so that
different rows of tokens never give the same token. Integers and buckets are written in decimal, hex tokens as eight lower-case digits.

Shapes: N rows, W of them with all parts, P distinct combinations.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dmoe.data.prepare.tokens.coded_column import Coded

JOIN, ESCAPE = b"|", b"\\"


def crossed(parts: Sequence[Coded]) -> Coded:
    """The cross of the parts. The token of a row is missing if one of its parts is missing.

    Args:
        parts: two or more columns [N] with one token for each row.
    """
    row_W = np.flatnonzero(np.logical_and.reduce([part.codes > 0 for part in parts]))
    key_W = np.zeros(len(row_W), np.int64)
    for part in parts:
        # Renumber the combinations so far, so that the product stays below N * (V + 1).
        place_W = np.unique(key_W, return_inverse=True)[1].reshape(-1)
        key_W = place_W * (len(part.values) + 1) + part.codes[row_W]
    _, first_P, place_W = np.unique(key_W, return_index=True, return_inverse=True)
    codes = np.zeros(len(parts[0].codes), np.int64)
    codes[row_W] = place_W.reshape(-1) + 1
    texts = [_texts(part.values).take(pa.array(part.codes[row_W[first_P]].astype(np.int64) - 1)) for part in parts]
    return Coded(codes, pc.binary_join_element_wise(*texts, pa.scalar(JOIN, pa.large_binary())))


def _texts(values: pa.Array) -> pa.Array:
    """Tokens as text, with JOIN and ESCAPE escaped."""
    if pa.types.is_large_binary(values.type):
        escaped = pc.replace_substring(values, pattern=ESCAPE, replacement=ESCAPE + ESCAPE)
        return pc.replace_substring(escaped, pattern=JOIN, replacement=ESCAPE + JOIN)
    if pa.types.is_uint32(values.type):
        digits = values.to_numpy().astype(">u4").tobytes().hex().encode()
        ends = pa.array(np.arange(0, len(digits) + 1, 8))
        return pa.Array.from_buffers(pa.large_binary(), len(values), [None, ends.buffers()[1], pa.py_buffer(digits)])
    return values.cast(pa.large_string()).cast(pa.large_binary())
