"""Distillation: a student learns the probabilities of a teacher as well as the labels (Hinton et al. 2015, arXiv 1503.02531).

Shapes: B rows of this rank.
"""

from torch import Tensor, nn

from dmoe.model.losses.expert_losses import RowMean


def divergence(logit_B: Tensor, teacher_B: Tensor, temperature: float = 1.0) -> Tensor:
    """T^2 KL(sigmoid(t / T) || sigmoid(z / T)) for each row, in nats. z is the student's logit, t the teacher's, which gets no gradient.

    The factor T^2 makes the size of the gradients independent of the temperature: near z = t the value is (z - t)^2 / 2 times the variance
    q (1 - q) at q = sigmoid(t / T).

    Args:
        logit_B: [B] float.
        teacher_B: [B] float.
        temperature: T. Above 1, small probabilities of the teacher have more weight.

    Returns:
        [B], nonnegative up to rounding; 0 if both logits are equal.

    Example:
        >>> import torch
        >>> divergence(torch.tensor([0.0, 2.0]), torch.tensor([0.0, 0.0]))
        tensor([0.0000, 0.4338])
    """
    z_B, t_B = logit_B / temperature, teacher_B.detach() / temperature
    log_p = nn.functional.logsigmoid
    q_B = t_B.sigmoid()
    return temperature**2 * (q_B * (log_p(t_B) - log_p(z_B)) + (1 - q_B) * (log_p(-t_B) - log_p(-z_B)))


class Distillation(nn.Module):
    """weight * mean over the rows of all ranks of `divergence`.

    Shape:
        - Input: logit of the student [B]; logit of the teacher [B].
        - Output: [], the share of this rank, as defined in `expert_losses`.
    """

    def __init__(self, weight: float, temperature: float = 1.0) -> None:
        super().__init__()
        self.weight, self.temperature = weight, temperature

    def forward(self, logit_B: Tensor, teacher_B: Tensor, mean: RowMean) -> Tensor:
        return self.weight * mean(divergence(logit_B, teacher_B, self.temperature)[:, None]).sum()
