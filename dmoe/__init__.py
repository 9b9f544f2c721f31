"""De-correlated mixture of experts for click-through-rate prediction, sharded with TorchRec.

The public names are imported when they are first used, so that `import dmoe` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dmoe.version import __version__

_PUBLIC = {
    "Batch": "dmoe.data.dataset.batch",
    "Callback": "dmoe.train.trainer",
    "Config": "dmoe.config.config",
    "CorrelationLoss": "dmoe.model.losses.correlation",
    "DMoE": "dmoe.model.dmoe",
    "Dataset": "dmoe.data.dataset.dataset",
    "Feature": "dmoe.model.dmoe",
    "Plan": "dmoe.sharding.plan.module_plan",
    "Planner": "dmoe.sharding.planner.module_planner",
    "Scorer": "dmoe.serve.scorer",
    "Trainer": "dmoe.train.trainer",
    "UserError": "dmoe.errors",
    "load_config": "dmoe.config.config",
}

if TYPE_CHECKING:
    from dmoe import metrics
    from dmoe.config.config import Config, load_config
    from dmoe.data.dataset.batch import Batch
    from dmoe.data.dataset.dataset import Dataset
    from dmoe.errors import UserError
    from dmoe.model.dmoe import DMoE, Feature
    from dmoe.model.losses.correlation import CorrelationLoss
    from dmoe.serve.scorer import Scorer
    from dmoe.sharding.plan.module_plan import Plan
    from dmoe.sharding.planner.module_planner import Planner
    from dmoe.train.trainer import Callback, Trainer

__all__ = [
    "Batch",
    "Callback",
    "Config",
    "CorrelationLoss",
    "DMoE",
    "Dataset",
    "Feature",
    "Plan",
    "Planner",
    "Scorer",
    "Trainer",
    "UserError",
    "__version__",
    "load_config",
    "metrics",
]


def __getattr__(name: str) -> Any:
    if name == "metrics":
        return import_module("dmoe.metrics")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'dmoe' has no attribute '{name}'")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
