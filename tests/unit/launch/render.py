"""Renders what a scheduler would be sent, from a component's command line; nothing is submitted."""

import json
import os
import shlex
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from torchx.schedulers import get_scheduler_factories
from torchx.specs import AppDef, materialize_appdef

from dmoe.launch import components
from tests.unit.launch.stand_ins import stand_in_for_kubernetes, stand_in_for_ray

GOLDEN = Path(__file__).parent / "golden"
SCHEDULERS = ("local_cwd", "slurm", "kubernetes", "local_docker", "aws_batch", "ray")
CONFIGS: dict[str, dict[str, Any]] = {
    "local_cwd": {"log_dir": "runs/torchx"},
    "slurm": {"partition": "gpu", "time": "3-00:00:00"},
    "kubernetes": {"queue": "train", "namespace": "ml", "image_repo": "example.com/ml/dmoe"},
    "aws_batch": {"queue": "train", "user": "me", "image_repo": "example.com/ml/dmoe"},
    "ray": {"dashboard_address": "127.0.0.1:8265"},
}
README = (Path(__file__).parents[3] / "README.md").read_text()


def readme_command(component: str) -> list[str]:
    """The arguments of the README's Slurm command, behind the component; they are on the line that the README prints, whole."""
    launch = f"torchx run --scheduler slurm launch/components.py:{component} "
    (line,) = (line.strip() for line in README.splitlines() if line.strip().startswith(launch))
    return shlex.split(line.removeprefix(launch))


CLUSTER = readme_command("train")
LASTING = ["--resume", "True", "--max_retries", "3"]
IMAGE = ["--image", "example.com/ml/dmoe:1.0"]
VOLUMES = ["--mounts", "type=volume,src=data,dst=/data,type=volume,src=runs,dst=/runs"]
FURTHER = {
    # A laptop is one node.
    "local_cwd": [*LASTING, "--elsewhere", "True", "--j", "1x8"],
    "slurm": [*LASTING, "--elsewhere", "True"],
    "kubernetes": [*LASTING, *IMAGE, *VOLUMES],
    "local_docker": [*LASTING, *IMAGE, "--mounts", "type=bind,src=/data,dst=/data,type=bind,src=/runs,dst=/runs"],
    "aws_batch": [
        *LASTING,
        *IMAGE,
        "--h",
        "aws_p5.48xlarge",
        "--mounts",
        "type=bind,src=/fsx/data,dst=/data,type=bind,src=/fsx/runs,dst=/runs",
    ],
    "ray": [*LASTING, "--elsewhere", "True"],
}


def app_of(component: str, arguments: list[str]) -> AppDef:
    return materialize_appdef(getattr(components, component), arguments)


def request_of(scheduler: str, app: AppDef, monkeypatch: pytest.MonkeyPatch, working_dir: str = "") -> Any:
    """torchx's own request for that scheduler, with ids and versions that do not change."""
    stand_in_for_kubernetes(monkeypatch)
    if scheduler == "ray":
        stand_in_for_ray(monkeypatch)
        app.roles[0].image = working_dir
    monkeypatch.setattr("torchx.schedulers.ids.random_id", lambda: "id0")
    # A machine that has Slurm would be asked how much memory its partition has.
    monkeypatch.setattr("torchx.schedulers.slurm_scheduler.SlurmScheduler._partition_memmb", lambda *_: None)
    made = get_scheduler_factories()[scheduler](session_name="golden")
    with warnings.catch_warnings():
        # torchx says it of every Kubernetes job with retries; docs/cluster.md says it too.
        warnings.filterwarnings("ignore", r"\s*Role \w+ configured with restarts: \d+. As of 1.4.0 Volcano", UserWarning)
        return made.submit_dryrun(app, made.run_opts().resolve(CONFIGS.get(scheduler, {}))).request


def text_of(scheduler: str, request: Any, working_dir: str = "") -> str:
    """The request as a person reads it."""
    if scheduler == "slurm":
        return request.materialize()
    if scheduler == "ray":
        actors = [vars(actor) for actor in request.actors]
        made = {**vars(request), "actors": actors}
        return json.dumps(made, indent=1).replace(working_dir, "<copy of the workspace>") + "\n"
    if scheduler == "local_cwd":
        # Every absolute path in it is of this machine: the folder, and what is under it.
        roles = {role: [_laptop(asdict(replica)) for replica in replicas] for role, replicas in request.role_params.items()}
        return yaml.safe_dump({"app_id": request.app_id, "log_dir": request.log_dir, "roles": roles}, width=200)
    if scheduler == "local_docker":
        return yaml.safe_dump([{"image": c.image, "command": c.command, **_plain(c.kwargs)} for c in request.containers], width=200)
    return str(request).rstrip() + "\n"


def _laptop(replica: dict[str, Any]) -> dict[str, Any]:
    """A process with its folder put as `.`, and without torchx's own PATH, which is this machine's."""
    text: str = json.dumps(replica | {"env": {key: value for key, value in replica["env"].items() if key != "PATH"}})
    return _plain(json.loads(text.replace(os.getcwd(), ".")))


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=dict))
