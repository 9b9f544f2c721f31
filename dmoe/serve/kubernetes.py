"""Kubernetes manifests for dmoe serve: a Deployment with probes, a Service, an autoscaler and a PodDisruptionBudget."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

HEALTH = "/v2/health"
LOAD_SECONDS, DRAIN_SECONDS = 600, 45
"""Longest time to load a scorer when a pod starts; longest time to finish the requests of a pod that is terminated."""
TOKEN = "/var/run/dmoe"


@dataclass(frozen=True)
class Deployment:
    """Settings of a deployment.

    Attributes:
        model: the scorer or pointer file in a pod: an absolute path below `mount`, or a URI.
        claim: name of a PersistentVolumeClaim to mount read-only at `mount`; empty for none.
        secret: name of a Secret whose key `token` holds the bearer token of requests; empty for none.
        replicas: smallest and largest number of pods.
        cpu, memory_mib: resources of a pod. Tables are memory-mapped: the workers of a pod share their pages.
        busy_percent: average CPU utilization that the autoscaler aims at.
        arguments: further arguments of dmoe serve.
    """

    name: str
    image: str
    model: str
    claim: str = ""
    mount: str = "/models"
    secret: str = ""
    replicas: tuple[int, int] = (2, 10)
    cpu: int = 1
    memory_mib: int = 2048
    port: int = 8080
    busy_percent: int = 70
    arguments: Sequence[str] = ()


def manifests(of: Deployment) -> list[dict[str, Any]]:
    """The manifests as dicts, in the order in which they are applied.

    Example:
        >>> [one["kind"] for one in manifests(Deployment("ctr", "dmoe:cpu", "/models/current", claim="models"))]
        ['Deployment', 'Service', 'HorizontalPodAutoscaler', 'PodDisruptionBudget']
    """
    labels = {"app.kubernetes.io/name": "dmoe-serve", "app.kubernetes.io/instance": of.name}
    fewest, most = of.replicas
    about = {"name": of.name, "labels": labels}
    ports = [{"name": "http", "port": 80, "targetPort": "http"}]
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": of.name}
    busy = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": of.busy_percent}}}
    deployment = {
        # Without `replicas`, which the autoscaler sets: to apply the manifests again would undo what it did.
        "selector": {"matchLabels": labels},
        # A new image starts before a pod with the old one ends. A new version of the model needs no new pod.
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "template": {"metadata": {"labels": labels}, "spec": _pod(of)},
    }
    scaling = {"scaleTargetRef": target, "minReplicas": fewest, "maxReplicas": most, "metrics": [busy]}
    found = [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": about, "spec": deployment},
        {"apiVersion": "v1", "kind": "Service", "metadata": about, "spec": {"selector": labels, "ports": ports}},
        {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": about, "spec": scaling},
    ]
    if fewest > 1:
        budget = {"maxUnavailable": 1, "selector": {"matchLabels": labels}}
        found.append({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": about, "spec": budget})
    return found


def _pod(of: Deployment) -> dict[str, Any]:
    command = ["dmoe", "serve", "--model", of.model, "--host", "0.0.0.0", "--port", str(of.port)]
    volumes: list[dict[str, Any]] = [{"name": "tmp", "emptyDir": {}}]
    mounts: list[dict[str, Any]] = [{"name": "tmp", "mountPath": "/tmp"}]
    if of.claim:
        volumes.append({"name": "models", "persistentVolumeClaim": {"claimName": of.claim, "readOnly": True}})
        mounts.append({"name": "models", "mountPath": of.mount, "readOnly": True})
    if of.secret:
        volumes.append({"name": "token", "secret": {"secretName": of.secret}})
        mounts.append({"name": "token", "mountPath": TOKEN, "readOnly": True})
        command += ["--token-file", os.path.join(TOKEN, "token")]
    memory = f"{of.memory_mib}Mi"
    container = {
        "name": "serve",
        "image": of.image,
        # Kubernetes replaces $(NAME) by a variable of the container, and $$ by $.
        "command": [word.replace("$", "$$") for word in (*command, *of.arguments)],
        "ports": [{"name": "http", "containerPort": of.port}],
        "env": [{"name": "HOME", "value": "/tmp"}, {"name": "NUMBA_CACHE_DIR", "value": "/tmp/numba"}],
        "resources": {"requests": {"cpu": str(of.cpu), "memory": memory}, "limits": {"memory": memory}},
        "startupProbe": _probe("live", 5, LOAD_SECONDS // 5),
        "readinessProbe": _probe("ready", 2, 2),
        "livenessProbe": _probe("live", 10, 3),
        # Requests still arrive until the Service has removed the pod from its endpoints.
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", "5"]}}},
        "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": mounts,
    }
    secure = {"runAsNonRoot": True, "runAsUser": 10001, "runAsGroup": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
    return {
        "terminationGracePeriodSeconds": DRAIN_SECONDS,
        "automountServiceAccountToken": False,
        "securityContext": secure,
        "containers": [container],
        "volumes": volumes,
    }


def _probe(what: str, every: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": f"{HEALTH}/{what}", "port": "http"},
        "periodSeconds": every,
        "timeoutSeconds": 2,
        "failureThreshold": failures,
    }


class _Plain(yaml.SafeDumper):
    """Repeats shared values instead of writing YAML anchors and aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def as_yaml(of: Deployment) -> str:
    """All manifests as one file for `kubectl apply -f`."""
    return "---\n".join(yaml.dump(one, Dumper=_Plain, sort_keys=False, width=120) for one in manifests(of))
