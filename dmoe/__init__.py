"""De-correlated mixture of experts for click-through-rate prediction, sharded with TorchRec."""

__version__ = "0.1.0"
