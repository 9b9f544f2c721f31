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
    from dmoe import metrics as metrics
    from dmoe.config.config import Config as Config
    from dmoe.config.config import load_config as load_config
    from dmoe.data.dataset.batch import Batch as Batch
    from dmoe.data.dataset.dataset import Dataset as Dataset
    from dmoe.errors import UserError as UserError
    from dmoe.model.dmoe import DMoE as DMoE
    from dmoe.model.dmoe import Feature as Feature
    from dmoe.model.losses.correlation import CorrelationLoss as CorrelationLoss
    from dmoe.serve.scorer import Scorer as Scorer
    from dmoe.sharding.plan.module_plan import Plan as Plan
    from dmoe.sharding.planner.module_planner import Planner as Planner
    from dmoe.train.trainer import Callback as Callback
    from dmoe.train.trainer import Trainer as Trainer

__all__ = ["__version__", "metrics", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name == "metrics":
        return import_module("dmoe.metrics")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'dmoe' has no attribute '{name}'")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
