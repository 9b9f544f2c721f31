"""The kept requests against what the schedulers themselves say a request is."""

import re
import shlex

import pytest
import yaml

from tests.unit.launch.render import GOLDEN

NODES = range(16)


def kept(scheduler: str):
    text = (GOLDEN / f"{scheduler}.txt").read_text()
    return text if scheduler == "slurm" else yaml.safe_load(text)


def commands(scheduler: str) -> list[list[str]]:
    """The shell command of each node."""
    if scheduler == "slurm":
        script = kept("slurm")
        groups = script[script.index("\nsrun ") + 6 : script.index("\nexitcode")].split(":\\\n")
        return [shlex.split(group) for group in groups]
    if scheduler == "kubernetes":
        return [task["template"]["spec"]["containers"][0]["command"] for task in kept("kubernetes")["spec"]["tasks"]]
    if scheduler == "aws_batch":
        (group,) = kept("aws_batch")["job_def"]["nodeProperties"]["nodeRangeProperties"]
        return [group["container"]["command"]]
    return [part["command"] for part in (kept("ray")["actors"] if scheduler == "ray" else kept("local_docker"))]


@pytest.mark.parametrize("scheduler", ["slurm", "kubernetes", "local_docker", "aws_batch", "ray"])
def test_every_node_runs_torchrun_with_the_same_number_of_nodes_and_a_place_to_meet(scheduler):
    found = commands(scheduler)
    assert len(found) == (1 if scheduler == "aws_batch" else len(NODES))
    for node, command in enumerate(found):
        *_, shell, flag, line = command
        assert (shell, flag) == ("bash", "-c")
        words = shlex.split(line)
        assert words[:3] == ["python", "-m", "dmoe.torchrun"]
        assert words[words.index("--nnodes") + 1 : words.index("--nnodes") + 4] == ["16", "--nproc-per-node", "8"]
        assert re.fullmatch(r"\$\{\w+:=localhost\}:29500", words[words.index("--rdzv-endpoint") + 1])
        expected = "$AWS_BATCH_JOB_NODE_INDEX" if scheduler == "aws_batch" else str(node)
        assert words[words.index("--log-dir") + 1] == f"/runs/first/logs/node-{expected}"
        program = words.index("--")
        assert words[program - 1 : program + 2] == ["-m", "--", "dmoe.train"]
        assert "--resume" in words[program:]


def test_slurm_asks_for_whole_nodes_that_can_be_requeued():
    lines = [line for line in kept("slurm").splitlines() if line.startswith("#SBATCH --")]
    assert len(lines) == len(NODES)
    for line in lines:
        options = dict(option.lstrip("-").partition("=")[::2] for option in shlex.split(line.removeprefix("#SBATCH ")))
        assert options["ntasks-per-node"] == "1"
        assert options["gpus-per-task"] == "8"
        assert "requeue" in options


def test_kubernetes_names_and_quantities_are_ones_that_it_takes():
    job = kept("kubernetes")
    assert (job["apiVersion"], job["kind"]) == ("batch.volcano.sh/v1alpha1", "Job")
    names = [job["metadata"]["name"], *(task["name"] for task in job["spec"]["tasks"])]
    assert all(re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name) for name in names)
    assert len(set(names)) == len(names)
    for task in job["spec"]["tasks"]:
        spec = task["template"]["spec"]
        (container,) = spec["containers"]
        limits, requests = container["resources"]["limits"], container["resources"]["requests"]
        assert limits["nvidia.com/gpu"] == requests["nvidia.com/gpu"] == "8"
        assert all(re.fullmatch(r"\d+[mM]?", str(amount)) for amount in [*limits.values(), *requests.values()])
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in spec["volumes"]}


@pytest.mark.parametrize("name", ["kubernetes", "kubernetes_evaluate", "kubernetes_ladder"])
def test_kubernetes_models_accept_every_pod(name):
    from kubernetes.client import ApiClient

    api = ApiClient()
    for task in kept(name)["spec"]["tasks"]:
        pod = api._ApiClient__deserialize(task["template"], "V1PodTemplateSpec")
        assert api.sanitize_for_serialization(pod) == task["template"]


VOLCANO = {
    "job": "schedulerName minAvailable volumes tasks policies plugins runningEstimate queue maxRetry ttlSecondsAfterFinished "
    "priorityClassName minSuccess networkTopology",
    "task": "name replicas minAvailable template policies topologyPolicy maxRetry dependsOn partitionPolicy",
    "policy": "action event events exitCode timeout",
}
"""The fields of batch.volcano.sh/v1alpha1 (volcano-sh/apis, pkg/apis/batch/v1alpha1/job.go)."""


def test_volcano_has_every_field_of_the_job():
    job = kept("kubernetes")
    assert set(job) == {"apiVersion", "kind", "metadata", "spec"}
    spec = job["spec"]
    assert set(spec) <= set(VOLCANO["job"].split())
    for task in spec["tasks"]:
        assert set(task) <= set(VOLCANO["task"].split())
        assert all(set(policy) <= set(VOLCANO["policy"].split()) for policy in task.get("policies", []))
        assert task["replicas"] == task["minAvailable"] == 1, "all nodes or none"
    assert len(spec["tasks"]) == len(NODES)


def test_aws_batch_service_model_accepts_the_job_definition():
    from botocore.loaders import Loader
    from botocore.model import ServiceModel
    from botocore.validate import ParamValidator

    shape = ServiceModel(Loader().load_service_model("batch", "service-2")).operation_model("RegisterJobDefinition").input_shape
    report = ParamValidator().validate(kept("aws_batch")["job_def"], shape)
    assert not report.has_errors(), report.generate_report()


def test_docker_mounts_data_and_runs_and_keeps_the_network():
    for container in kept("local_docker"):
        assert container["network"] == "torchx"
        assert [(mount["Source"], mount["Target"], mount["Type"]) for mount in container["mounts"]] == [
            ("/data", "/data", "bind"),
            ("/runs", "/runs", "bind"),
        ]
        assert container["device_requests"][0]["Count"] == 8
