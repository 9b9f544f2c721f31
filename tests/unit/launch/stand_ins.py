"""The few names of `kubernetes` and `ray` that torchx needs to render a request, for machines that have neither.

Where the real package is installed it is used, and the same golden file has to come out.
"""

import importlib.util
import sys
from enum import Enum
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


class Model(SimpleNamespace):
    """A V1 object: keyword arguments in snake case, which the API writes in camel case, without those that are None."""


def _model(name: str) -> type:
    return type(name, (Model,), {})


def serialized(value: Any) -> Any:
    """As kubernetes' ApiClient.sanitize_for_serialization."""
    if isinstance(value, Model):
        return {_camel(key): serialized(field) for key, field in vars(value).items() if field is not None}
    if isinstance(value, dict):
        return {key: serialized(field) for key, field in value.items()}
    return [serialized(entry) for entry in value] if isinstance(value, list) else value


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _module(monkeypatch: pytest.MonkeyPatch, name: str, **names: Any) -> None:
    module = ModuleType(name)
    module.__path__ = []
    vars(module).update(names)
    monkeypatch.setitem(sys.modules, name, module)
    parent, _, leaf = name.rpartition(".")
    if parent:
        monkeypatch.setattr(sys.modules[parent], leaf, module, raising=False)


class _Models(ModuleType):
    __path__: list[str] = []  # noqa: RUF012

    def __getattr__(self, name: str) -> type:
        if not name.startswith("V1"):
            raise AttributeError(name)
        return _model(name)


def stand_in_for_kubernetes(monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("kubernetes"):
        return
    _module(monkeypatch, "kubernetes")
    _module(monkeypatch, "kubernetes.client", ApiClient=lambda: SimpleNamespace(sanitize_for_serialization=serialized))
    models = _Models("kubernetes.client.models")
    monkeypatch.setitem(sys.modules, "kubernetes.client.models", models)


def stand_in_for_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torchx.schedulers.ray_scheduler", raising=False)
    if importlib.util.find_spec("ray"):
        return
    states = Enum("JobStatus", ["PENDING", "RUNNING", "SUCCEEDED", "FAILED", "STOPPED"])  # type: ignore[misc]
    for name in ("ray", "ray.autoscaler", "ray.dashboard", "ray.dashboard.modules", "ray.dashboard.modules.job"):
        _module(monkeypatch, name)
    _module(monkeypatch, "ray.autoscaler.sdk")
    _module(monkeypatch, "ray.dashboard.modules.job.common", JobStatus=states)
    _module(monkeypatch, "ray.dashboard.modules.job.sdk", JobSubmissionClient=object)
