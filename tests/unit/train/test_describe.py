"""What a run says before it starts."""

import pytest
import torch

from dmoe.config.config import Config
from dmoe.data.dataset.manifest import Shard, Split
from dmoe.model.dmoe import manifest_of
from dmoe.train.output.describe import notices

SHARD = Shard(path="s.parquet", rows=1 << 20, positives=1000, sha256="0" * 64)
SPLITS = {name: Split(rows=1 << 20, positives=1000, shards=(SHARD,)) for name in ("train", "validation", "test")}
MANIFEST = manifest_of({"C1": 10}, []).model_copy(update={"splits": SPLITS})


def told(tree: dict, ranks: int = 1, device: str = "cpu") -> str:
    return "\n".join(notices(Config.model_validate(tree), MANIFEST, ranks, torch.device(device)))


@pytest.mark.parametrize(
    ("shuffle", "row_groups", "ranks", "said"),
    [
        ("window", 8, 8, []),
        ("none", 8, 1, []),
        ("window", 8, 16, ["data.window_row_groups=8: ", "16 ranks", "; data.window_row_groups=16 "]),
        ("row_groups", 1, 2, ["data.window_row_groups=1: ", "2 ranks"]),
        ("none", 8, 4, ["data.shuffle=none: ", "4 ranks", "; data.shuffle=window data.window_row_groups=4 "]),
    ],
)
def test_ranks_that_share_row_groups_are_told_of(shuffle, row_groups, ranks, said):
    line = told({"data": {"path": "d", "shuffle": shuffle, "window_row_groups": row_groups}}, ranks)
    assert all(one in line for one in said)
    assert bool(line) == bool(said)


@pytest.mark.parametrize(
    ("precision", "device", "has", "said"),
    [
        ("bf16", "cpu", {"avx2": True, "avx512_bf16": False}, True),
        ("bf16", "cpu", {"avx2": True, "amx_bf16": True}, False),
        ("bf16", "cpu", {"bf16": True}, False),
        ("bf16", "cuda", {}, False),
        ("fp32", "cpu", {}, False),
    ],
)
def test_bf16_on_a_cpu_that_has_none_is_told_of(precision, device, has, said, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    assert ("train.precision=bf16" in told({"train": {"precision": precision}}, device=device)) == said
