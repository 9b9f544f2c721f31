"""The cross layers' own gradients equal those that autograd makes of their definition."""

import torch
from torch.nn.functional import linear

from dmoe.model.experts.cross import Cross


def test_gradients_equal_autograds_of_the_definition():
    torch.manual_seed(0)
    cross, x0_BN = Cross(5, 3).double(), torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    torch.nn.init.normal_(cross.bias[1])
    x_BN = x0_BN
    for kernel_NN, bias_N1 in zip(cross.kernels, cross.bias, strict=True):
        x_BN = x_BN + x0_BN * linear(x_BN, kernel_NN, bias_N1[:, 0])
    sought, weights_BN = [x0_BN, *cross.parameters()], torch.randn(7, 5, dtype=torch.float64)
    expected = torch.autograd.grad(x_BN, sought, weights_BN)
    out_BN = cross(x0_BN)
    torch.testing.assert_close(out_BN, x_BN, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(torch.autograd.grad(out_BN, sought, weights_BN), expected, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(cross(x0_BN), x_BN, rtol=1e-14, atol=1e-14)
