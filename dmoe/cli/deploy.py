"""Print Kubernetes manifests for dmoe serve: a Deployment with probes, a Service, an autoscaler and a disruption budget.

dmoe deploy --model /models/current --image example.com/dmoe:cpu --claim models -- --workers 2 | kubectl apply -f -
"""

import argparse
import os
import re

from dmoe.errors import UserError, one_line

NAME = re.compile(r"[a-z]([-a-z0-9]{0,51}[a-z0-9])?")
OBJECT = re.compile(r"(?=.{0,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
"""Names of claims and secrets that Kubernetes takes."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="the scorer or pointer file as the pods see it: a path below --mount, or a URI")
    parser.add_argument("--image", required=True, help="container image with dmoe (Dockerfile)")
    parser.add_argument("--name", default="dmoe-serve", help="name of the Deployment and the Service (dmoe-serve)")
    parser.add_argument("--claim", default="", help="PersistentVolumeClaim with the scorers, mounted read-only at --mount")
    parser.add_argument("--mount", default="/models", help="mount point of the claim in the pods (/models)")
    parser.add_argument("--secret", default="", help="Secret whose key `token` is the bearer token that requests must have")
    parser.add_argument("--replicas", default="2:10", metavar="MIN:MAX", help="least and most pods (2:10)")
    parser.add_argument("--cpu", type=int, default=1, help="cores of each pod (1)")
    parser.add_argument("--memory-mib", type=int, default=2048, help="memory of each pod, including the used pages of the tables (2048)")
    parser.add_argument("--busy-percent", type=int, default=70, help="CPU utilization above which pods are added (70)")
    parser.add_argument("arguments", nargs="*", help="further arguments of dmoe serve, after --")


def run(arguments: argparse.Namespace) -> None:
    print(as_yaml_of(arguments), end="")


def as_yaml_of(arguments: argparse.Namespace) -> str:
    from dmoe.serve.kubernetes import Deployment, as_yaml

    found = re.fullmatch(r"(\d{1,4}):(\d{1,4})", arguments.replicas)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise UserError(f"--replicas {one_line(arguments.replicas)}: expected the least and most pods, such as 2:10")
    if not NAME.fullmatch(arguments.name):
        raise UserError(
            f"--name {one_line(arguments.name)}: expected lower-case letters, digits and -, beginning with a letter, such as ctr-model"
        )
    for name in ("claim", "secret"):
        if (given := getattr(arguments, name)) and not OBJECT.fullmatch(given):
            raise UserError(f"--{name} {one_line(given)}: expected lower-case letters, digits, - and ., such as ctr-models")
    if not arguments.image or re.search(r"\s", arguments.image):
        raise UserError(f"--image {one_line(arguments.image)}: expected the name of an image, such as example.com/dmoe:cpu")
    if not os.path.isabs(arguments.mount) or ":" in arguments.mount:
        raise UserError(f"--mount {one_line(arguments.mount)}: expected an absolute path without a colon, such as /models")
    for name, most in (("cpu", 1024), ("memory_mib", 1 << 24), ("busy_percent", 100)):
        if not 1 <= getattr(arguments, name) <= most:
            raise UserError(f"--{name.replace('_', '-')} {getattr(arguments, name)}: expected 1 to {most}")
    below = os.path.normpath(arguments.model).startswith(os.path.normpath(arguments.mount) + "/")
    if "://" not in arguments.model and arguments.claim and not below:
        raise UserError(
            f"--model {one_line(arguments.model)}: not below --mount {one_line(arguments.mount)}, where the claim's scorers are"
        )
    if "://" not in arguments.model and not os.path.isabs(arguments.model):
        raise UserError(f"--model {one_line(arguments.model)}: expected an absolute path in the pods, or a URI")
    _check_serve(arguments.model, arguments.arguments)
    return as_yaml(
        Deployment(
            arguments.name,
            arguments.image,
            arguments.model,
            arguments.claim,
            arguments.mount,
            arguments.secret,
            (int(found[1]), int(found[2])),
            arguments.cpu,
            arguments.memory_mib,
            busy_percent=arguments.busy_percent,
            arguments=arguments.arguments,
        )
    )


def _check_serve(model: str, words: list[str]) -> None:
    """Checks the arguments for dmoe serve.

    Raises:
        UserError: dmoe serve does not know an option, or the manifests set it already.
    """
    from dmoe.cli.main import checked

    without, given = (checked(["serve", "--model", model, *some]) for some in ([], words))
    # By the parsed values, because an option may be abbreviated.
    for name in ("model", "host", "port", "token_file"):
        if getattr(given, name) != getattr(without, name):
            raise UserError(f"--{name.replace('_', '-')}: dmoe deploy sets it; give it before --, if dmoe deploy has this option")
