"""Streaming metrics as `torchmetrics.Metric`s, with reset, devices, `MetricCollection`, and exact merging over ranks."""

from dmoe.metrics.ambiguity import Ambiguity, AmbiguityReport
from dmoe.metrics.auc import BinnedAUC, ExactAUC
from dmoe.metrics.cec import CecReport, CrossExpertCorrelation
from dmoe.metrics.grouped import Gauc, GroupedAUC

__all__ = ["Ambiguity", "AmbiguityReport", "BinnedAUC", "CecReport", "CrossExpertCorrelation", "ExactAUC", "Gauc", "GroupedAUC"]
