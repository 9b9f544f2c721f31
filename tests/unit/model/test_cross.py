"""Our cross layers against TorchRec's: the same names, the same draws, the same output."""

import torch
from torchrec.modules.crossnet import CrossNet, LowRankCrossNet

from dmoe.model.experts.cross import Cross, LowRankCross


def test_equal_to_torchrecs_bit_by_bit_in_weights_and_to_rounding_in_output():
    for theirs, ours in (
        (lambda: CrossNet(12, 3), lambda: Cross(12, 3)),
        (lambda: LowRankCrossNet(12, 3, 4), lambda: LowRankCross(12, 3, 4)),
    ):
        torch.manual_seed(0)
        one = theirs()
        torch.manual_seed(0)
        other = ours()
        assert list(one.state_dict()) == list(other.state_dict())
        for name, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[name])
        x_BN = torch.randn(5, 12)
        torch.testing.assert_close(one(x_BN), other(x_BN))
