"""train.compile: the same losses, names and evaluation; refused in one line where nothing can compile.

By the backend aot_eager, which traces as inductor does and then runs PyTorch's own kernels: C++ takes a compiler, and minutes on a busy
machine. So inductor's code is not tested here.
"""

from functools import partial

import pytest
import torch
from torch._inductor import cpp_builder
from torch._inductor.exc import InvalidCxxCompiler

from dmoe.errors import UserError
from dmoe.testing.small_run import open_small, small_config, train_steps
from dmoe.train import session as session_module
from dmoe.train.compiled import compile_dense, refuse_without_compiler
from dmoe.train.evaluate import evaluate


def trained(data, *overrides):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    plain = session_module.compile_dense
    session_module.compile_dense = partial(compile_dense, backend="aot_eager")
    try:
        session = open_small(small_config(data, *overrides))
    finally:
        session_module.compile_dense = plain
    losses = train_steps(session, 4)
    figures = evaluate(session, session.reader("validation"))
    # Frames that dynamo compiled: without one the test would compare eager with eager.
    return losses, figures["logloss"], list(session.task.state_dict()), torch._dynamo.utils.counters["frames"]["ok"]


def test_compiled_steps_evaluation_and_names_are_the_plain_ones(ranks, data_set):
    plain, compiled = (ranks(2).run(trained, data_set, f"train.compile={value}") for value in ("false", "true"))
    for (losses, logloss, names, frames), (expected, expected_logloss, expected_names, no_frames) in zip(compiled, plain, strict=True):
        assert losses == pytest.approx(expected, rel=1e-5)
        assert logloss == pytest.approx(expected_logloss, rel=1e-5)
        assert names == expected_names
        assert (frames > 0, no_frames) == (True, 0)


def test_no_compiler_is_one_line(monkeypatch):
    def none() -> str:
        raise InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none)
    with pytest.raises(UserError, match=r"^train.compile: no C\+\+ compiler .* set train.compile=false$"):
        refuse_without_compiler("cpu")
