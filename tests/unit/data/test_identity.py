"""The digest of a vocabulary: an independent reference, any cut into pieces, and files read piece by piece."""

import hashlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmoe.data.dataset import identity, vocabulary_files
from dmoe.data.dataset.identity import TokenDigest, edges_digest, tokens_digest
from dmoe.data.dataset.vocabulary_files import read_digests


def reference(tokens: list[int] | list[bytes]) -> str:
    kind = "" if not tokens else "int64" if isinstance(tokens[0], int) else "bytes"
    lengths = b"" if kind == "int64" else b"".join(len(token).to_bytes(4, "little") for token in tokens)  # type: ignore[arg-type]
    content = b"".join(token.to_bytes(8, "little", signed=True) if isinstance(token, int) else token for token in tokens)
    streams = hashlib.sha256(lengths).digest() + hashlib.sha256(content).digest()
    return hashlib.sha256(f"{kind} {len(tokens)}\n".encode() + streams).hexdigest()


def column(tokens: list[int] | list[bytes]) -> np.ndarray | pa.Array:
    return np.array(tokens, np.int64) if all(isinstance(token, int) for token in tokens) else pa.array(tokens, pa.large_binary())


TOKENS = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=8) | st.lists(st.binary(max_size=4), max_size=8)


@given(tokens=TOKENS, cuts=st.lists(st.integers(0, 8), max_size=3), piece=st.integers(1, 4))
def test_a_digest_is_its_definition_for_any_cut_into_pieces(tokens, cuts, piece):
    assert tokens_digest(column(tokens)) == reference(tokens)
    digest, edges = TokenDigest(), [0, *sorted(min(cut, len(tokens)) for cut in cuts), len(tokens)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(identity, "PIECE", piece)
        for low, high in pairwise(edges):
            # A slice keeps the buffers of the whole: the digest must be of its own tokens alone.
            digest.add(column(tokens)[low:high])
            assert digest.hexdigest() == reference(tokens[:high])


def test_tokens_of_the_same_bytes_have_other_digests():
    same = [[b"ab", b"c"], [b"a", b"bc"], [b"abc"], [b"abc", b""], [b"", b"abc"]]
    assert len({reference(tokens) for tokens in same} | {tokens_digest(column(tokens)) for tokens in same}) == len(same)
    assert tokens_digest(np.array([7])) != tokens_digest(pa.array([(7).to_bytes(8, "little")], pa.large_binary()))


@pytest.mark.parametrize("dtype", [pa.int64(), pa.binary(), pa.large_binary()])
def test_a_file_is_read_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: pa.DataType):
    monkeypatch.setattr(vocabulary_files, "PIECE", 7)
    integers = dtype == pa.int64()
    tokens = list(range(100)) if integers else [b"t%d" % number for number in range(100)]
    path = tmp_path / "v.parquet"
    pq.write_table(pa.table({"token": pa.array(tokens, dtype), "id": pa.array(range(2, 102), pa.int32())}), path, row_group_size=30)
    for first in (0, 1, 7, 30, 59, 100, 200):
        assert read_digests(str(path), first) == (reference(tokens[:first]), reference(tokens), 100)


def test_edges_are_told_apart_to_the_last_bit():
    assert edges_digest([0.1, 0.3]) == edges_digest(np.array([0.1, 0.3]))
    assert edges_digest([0.1, 0.3]) != edges_digest([0.1, 0.1 + 0.2])
