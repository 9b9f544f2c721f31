"""What the stage of speed and limit.py replay of a step: every matrix product in it, forward and backward, whatever it is called by."""

import torch

from dmoe.accept.stages.products import Recorder, Replay


def test_every_form_of_a_product_is_recorded_with_its_flops() -> None:
    a, b, c = torch.randn(5, 3), torch.randn(3, 4), torch.randn(5, 4)
    batched = torch.randn(2, 5, 3), torch.randn(2, 3, 4), torch.randn(2, 5, 4)
    with Recorder() as recorder:
        torch.mm(a, b)
        torch.mm(a, b, out=c)
        torch.addmm(c, a, b)
        c.addmm_(a, b)
        torch.nn.functional.linear(a, b.t(), torch.zeros(4))
        torch.bmm(*batched[:2])
        torch.baddbmm(batched[2], *batched[:2])
    replay = Replay(recorder.products, torch.device("cpu"))
    assert sum(recorder.products.values()) == 7
    assert replay.flops == 2 * 5 * 3 * 4 * (5 + 2 * 2)
    replay.run()
    replay.with_passes()


def test_a_backward_pass_is_recorded_and_a_weights_gradient_is_told_from_a_samples() -> None:
    layer, x = torch.nn.Linear(3, 4), torch.randn(64, 3, requires_grad=True)
    with Recorder() as recorder:
        layer(x).sum().backward()
    of_rows = sorted((product.flops, product.of_rows) for product in recorder.products)
    assert of_rows == [(2 * 64 * 3 * 4, False), (2 * 64 * 3 * 4, True), (2 * 64 * 3 * 4, True)]
