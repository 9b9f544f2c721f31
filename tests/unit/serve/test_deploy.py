"""dmoe deploy: its manifests are Kubernetes' own, by the client's models, and their command is one that dmoe serve takes."""

import json
import re
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import yaml

from dmoe.cli.main import main, parse

client = pytest.importorskip("kubernetes.client")
KINDS = {
    "Deployment": "V1Deployment",
    "Service": "V1Service",
    "HorizontalPodAutoscaler": "V2HorizontalPodAutoscaler",
    "PodDisruptionBudget": "V1PodDisruptionBudget",
}
GIVEN = ["deploy", "--model", "/models/current", "--image", "example.com/dmoe:cpu", "--claim", "models", "--secret", "s"]


def told(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    assert main([*GIVEN, *words]) == 0
    return list(yaml.safe_load_all(capsys.readouterr().out))


def typed(tree: dict[str, Any]) -> Any:
    """By the client's model of that kind, which refuses a field that is absent."""
    return client.ApiClient().deserialize(SimpleNamespace(data=json.dumps(tree)), KINDS[tree["kind"]])


def test_nothing_is_lost_in_the_clients_models(capsys):
    for tree in told(capsys, "--replicas", "3:7", "--cpu", "2", "--", "--workers", "2"):
        # A key that a model does not know is dropped by it.
        assert client.ApiClient().sanitize_for_serialization(typed(tree)) == tree


def test_the_parts_fit_each_other_and_the_server(capsys):
    deployment, service, scaler, budget = map(typed, told(capsys, "--name", "ctr", "--replicas", "3:7", "--", "--workers", "2"))
    pod = deployment.spec.template
    (container,) = pod.spec.containers
    assert {deployment.metadata.name, service.metadata.name, scaler.spec.scale_target_ref.name} == {"ctr"}
    assert pod.metadata.labels == service.spec.selector == deployment.spec.selector.match_labels == budget.spec.selector.match_labels
    assert service.spec.ports[0].target_port == container.ports[0].name == container.readiness_probe.http_get.port
    assert (deployment.spec.replicas, scaler.spec.min_replicas, scaler.spec.max_replicas) == (None, 3, 7)
    assert {one.name for one in container.volume_mounts} == {one.name for one in pod.spec.volumes}
    assert container.command[0] == "dmoe"
    served = parse(container.command[1:])[2]
    assert (served.model, served.host, served.port) == ("/models/current", "0.0.0.0", container.ports[0].container_port)
    assert (served.workers, served.token_file) == (2, "/var/run/dmoe/token")
    assert pod.spec.termination_grace_period_seconds > 30 + 5, "longer than the drain of the server and its preStop"


def test_the_probes_are_paths_of_the_server(capsys):
    from dmoe.serve.server.app import routes

    deployment, *_ = map(typed, told(capsys))
    (container,) = deployment.spec.template.spec.containers
    known = {route.path for route in routes(MagicMock())}
    assert {one.http_get.path for one in (container.startup_probe, container.readiness_probe, container.liveness_probe)} <= known


def test_one_pod_has_no_budget_and_no_claim_no_volume(capsys):
    assert main(["deploy", "--model", "s3://b/current", "--image", "i", "--replicas", "1:1"]) == 0
    trees = list(yaml.safe_load_all(capsys.readouterr().out))
    assert [tree["kind"] for tree in trees] == ["Deployment", "Service", "HorizontalPodAutoscaler"]
    assert [one["name"] for one in trees[0]["spec"]["template"]["spec"]["volumes"]] == ["tmp"]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--replicas", "3"], "--replicas 3"),
        (["--replicas", "3:2"], "--replicas 3:2"),
        (["--name", "A b"], "--name A b"),
        (["--mount", "/other"], "--mount /other"),
        (["--cpu", "0"], "--cpu 0"),
        (["--", "--wrkers", "2"], "--wrkers"),
        (["--", "--port", "80"], "--port"),
        (["--", "--por", "80"], "--port"),
        (["--claim", "My_claim"], "--claim My_claim"),
        (["--secret", "a..b"], "--secret a..b"),
        (["--image", "a b"], "--image a b"),
        (["--mount", "models"], "--mount models"),
    ],
)
def test_a_mistake_is_one_line(capsys, words, named):
    assert main([*GIVEN, *words]) == 2
    out = capsys.readouterr()
    assert (out.out, named in out.err, out.err.count("\n")) == ("", True, 1)


def test_kubernetes_expands_nothing_in_a_path(capsys):
    """https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1: $$ is $, $(NAME) is a variable's value."""
    path = "/models/$(HOME) $$(HOME) $x"
    deployment, *_ = told(capsys, "--model", path)
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    variables = {one["name"]: one["value"] for one in container["env"]}
    expanded = [
        re.sub(r"\$(?:\$|\((\w+)\))", lambda found: variables.get(found[1], found[0]) if found[1] else "$", word)
        for word in container["command"]
    ]
    assert parse(expanded[1:])[2].model == path
