"""fp16 between ranks: half the bytes of embeddings and gradients, nearly the same losses; bf16 on gloo is refused, not replaced."""

import pytest
import torch

from dmoe.errors import UserError
from dmoe.sharding.plan.qcomm import codecs_of
from dmoe.testing.small_run import open_small, small_config, train_steps
from dmoe.train.rehearsal.collective_bytes import SentBytes

KINDS = {"table_wise": ("all_to_all",), "row_wise": ("reduce_scatter", "all_gather")}


def run_and_count(data, *overrides):
    session = open_small(small_config(data, *overrides))
    with SentBytes() as counter:
        losses = train_steps(session, 6)
    return losses, dict(counter.sent), sum(table.columns for table in session.tables)


@pytest.mark.parametrize("kind", KINDS)
def test_fp16_sends_half_the_bytes_of_floats_and_trains_alike(ranks, data_set, kind):
    fp32, fp16 = (
        ranks(2).run(run_and_count, data_set, f"sharding.types=[{kind}]", f"sharding.comm_precision={name}") for name in ("fp32", "fp16")
    )
    for (losses, *_), (expected, *_) in zip(fp16, fp32, strict=True):
        assert losses == pytest.approx(expected, rel=1e-3)
        assert losses != expected
    saved = {name: sum(plain[1].get(name, 0) - half[1].get(name, 0) for plain, half in zip(fp32, fp16, strict=True)) for name in fp32[0][1]}
    # Of the two ranks' rows, half is for the other one under table_wise; under row_wise each hands all rows' sums on. Forward and backward.
    rows, columns = 6 * 64, fp32[0][2]
    assert sum(saved[name] for name in KINDS[kind]) == 2 * rows * columns * 2 / (2 if kind == "table_wise" else 1)
    assert not any(count for name, count in saved.items() if name not in KINDS[kind])


def test_gradients_of_a_large_batch_do_not_underflow():
    codecs = codecs_of(small_config("nowhere", "sharding.comm_precision=fp16", "train.batch_size=1000000"), torch.device("cpu"))
    assert codecs is not None
    backward = codecs["POOLED_EMBEDDINGS_ALL_TO_ALL"].backward
    gradients = torch.tensor([3e-9, -2e-7, 5e-4])
    torch.testing.assert_close(backward.decode(backward.encode(gradients)), gradients, rtol=1e-3, atol=0)


def test_bf16_on_the_cpu_is_refused_and_fp32_needs_nothing():
    with pytest.raises(UserError, match=r"^sharding\.comm_precision: bf16 .*fp16"):
        codecs_of(small_config("nowhere", "sharding.comm_precision=bf16"), torch.device("cpu"))
    assert codecs_of(small_config("nowhere"), torch.device("cpu")) is None
