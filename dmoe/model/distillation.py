"""What a student learns of a teacher: its probability of every row (Hinton et al. 2015, arXiv 1503.02531), beside the label.

Shapes: B rows of this rank.
"""

from torch import Tensor, nn

from dmoe.model.expert_losses import RowMean


def divergence(logit_B: Tensor, teacher_B: Tensor, temperature: float = 1.0) -> Tensor:
    """T^2 KL(sigmoid(t / T) || sigmoid(z / T)) of each row, in nats: z the student's logit, t the teacher's, which gets no gradient.

    T^2 keeps the gradients of one size, whatever the temperature: near z = t the value is (z - t)^2 / 2 times the variance q (1 - q) at
    q = sigmoid(t / T).

    Args:
        logit_B: [B] float.
        teacher_B: [B] float.
        temperature: T; above 1 the teacher's small probabilities weigh more.

    Returns:
        [B], not negative but for rounding; 0 where both logits are equal.

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
        - Input: the student's logit [B]; the teacher's [B].
        - Output: [], a rank's share, as of the losses in `expert_losses`.
    """

    def __init__(self, weight: float, temperature: float = 1.0) -> None:
        super().__init__()
        self.weight, self.temperature = weight, temperature

    def forward(self, logit_B: Tensor, teacher_B: Tensor, mean: RowMean) -> Tensor:
        return self.weight * mean(divergence(logit_B, teacher_B, self.temperature)[:, None]).sum()
