"""What the training loop sets from step to step, in one object that the mixture and the objective of a task share."""

from dataclasses import dataclass

from torch import Tensor


@dataclass
class StepControls:
    """
    Attributes:
        alpha_factor: multiplies the weight of the de-correlation loss: its warm-up and decay.
        expert_logits: compute every expert's own logit in training too, which costs M more rows of the tower; evaluation always does.
        leave_out: compute the logit without each expert, in evaluation; costs M more rows of the tower.
        gradient_norms: where not None, the backward pass leaves the squared norms of the gradients at the experts' outputs here: `task`
            and `correlation`.
    """

    alpha_factor: float = 1.0
    expert_logits: bool = False
    leave_out: bool = False
    gradient_norms: dict[str, Tensor] | None = None
