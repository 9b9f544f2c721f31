"""The Arrow stream of a request: a damaged one, or one that is small and stands for much memory, is refused before anything uses it."""

import contextlib
import random
import struct

import numpy as np
import pyarrow as pa
import pytest

from dmoe.errors import UserError
from dmoe.serve.server.arrow_body import TooLarge, arrow_rows

N, MIB = 100, 1 << 20
TEXTS = pa.array(["ab"] * N)


def stream(column: pa.Array, **options: str) -> bytes:
    sink, table = pa.BufferOutputStream(), pa.table({"site": column, "price": np.arange(N) / 3})
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=60)
    return sink.getvalue().to_pybytes()


def views(length: int, data: bytes) -> pa.Array:
    """The first `length` bytes of `data`, once for each row."""
    one = struct.pack("<i", length) + data[:4] + struct.pack("<ii", 0, 0)
    return pa.Array.from_buffers(pa.string_view(), N, [None, pa.py_buffer(one * N), pa.py_buffer(data)])


@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
@pytest.mark.parametrize(
    "column",
    [TEXTS, TEXTS.dictionary_encode(), TEXTS.cast(pa.string_view()), pa.array([["a", "b"]] * N), pa.nulls(N), pa.array([1, None] * 50)],
)
def test_a_sound_stream_is_read(column, compression):
    found = arrow_rows(stream(column, **({"compression": compression} if compression else {})), N, MIB)
    assert found["site"].to_pylist() == column.to_pylist()


@pytest.mark.parametrize(("place", "offset"), [(50, 2**31 - 1), (50, -5), (60, 10**8), (0, -(10**8))])
def test_offsets_that_lead_out_of_the_buffer_are_refused(place, offset):
    offsets = np.arange(61, dtype=np.int32) * 2
    wrong = offsets.copy()
    wrong[place] = offset
    whole = stream(TEXTS)
    assert offsets.tobytes() in whole
    with pytest.raises(UserError, match="Arrow"):
        arrow_rows(whole.replace(offsets.tobytes(), wrong.tobytes()), N, MIB)


def test_a_dictionarys_wrong_index_is_refused():
    indices = np.arange(60, dtype=np.int32)
    whole = stream(pa.DictionaryArray.from_arrays(pa.array([*range(60)] * 2, pa.int32())[:N], pa.array([f"s{n}" for n in range(60)])))
    assert indices.tobytes() in whole
    with pytest.raises(UserError, match="Arrow"):
        arrow_rows(whole.replace(indices.tobytes(), (indices + 10**8).tobytes()), N, MIB)


def test_views_in_a_buffer_of_a_broken_size_are_read_or_refused():
    whole = stream(TEXTS.cast(pa.string_view()))
    pieces = whole.split(struct.pack("<q", 16 * 60))
    assert len(pieces) > 1
    for place in range(1, len(pieces)):
        size = struct.pack("<q", 16 * 60)
        body = size.join(pieces[:place]) + struct.pack("<q", 16 * 60 + 3) + size.join(pieces[place:])
        with contextlib.suppress(UserError):
            assert arrow_rows(body, N, MIB).num_rows == N


@pytest.mark.parametrize(
    "body",
    [
        stream(pa.array(["x" * 100_000] * N), compression="zstd"),
        stream(pa.DictionaryArray.from_arrays(pa.array([0] * N), pa.array(["x" * 100_000]))),
        stream(views(100_000, b"x" * 100_000)),
    ],
    ids=["compressed", "dictionary", "views"],
)
def test_little_that_stands_for_much_is_too_large(body):
    assert len(body) < MIB
    with pytest.raises(TooLarge):
        arrow_rows(body, N, MIB)
    assert arrow_rows(body, N, 100 * MIB).num_rows == N


def test_too_many_rows_and_types_that_are_not_read():
    with pytest.raises(TooLarge):
        arrow_rows(stream(TEXTS), N - 1, MIB)
    for column in (pa.array([{"a": 1}] * N), pa.RunEndEncodedArray.from_arrays(pa.array([N], pa.int32()), pa.array(["s"]))):
        with pytest.raises(UserError, match="site"):
            arrow_rows(stream(column), N, MIB)


def test_any_changed_bytes_are_a_table_or_refused():
    draw, whole, refused = random.Random(0), stream(TEXTS.dictionary_encode(), compression="lz4"), 0
    for _ in range(300):
        body = bytearray(whole)
        for _ in range(draw.choice((1, 3, 20))):
            place = draw.randrange(len(body))
            body[place : place + draw.randrange(9)] = draw.randbytes(draw.randrange(9))
        try:
            assert arrow_rows(bytes(body), N, MIB).num_rows <= N
        except UserError:
            refused += 1
    assert refused > 100
