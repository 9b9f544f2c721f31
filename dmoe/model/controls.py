"""Settings that the training loop may change at every step. The mixture and the objective of a task share one object."""

from dataclasses import dataclass

from torch import Tensor


@dataclass
class StepControls:
    """
    Attributes:
        alpha_factor: multiplies the weight of the de-correlation loss, for its warm-up and decay.
        expert_logits: compute the logit of each expert alone also in training. This costs M more rows of the tower. In evaluation these
            logits are always computed.
        leave_out: in evaluation, compute for each expert the logit of the mixture without it. This costs M more rows of the tower.
        gradient_norms: if not None, the backward pass writes the squared norms of the gradients at the experts' outputs to the keys `task`
            and `correlation`.
    """

    alpha_factor: float = 1.0
    expert_logits: bool = False
    leave_out: bool = False
    gradient_norms: dict[str, Tensor] | None = None
