"""torchx components of dmoe: `torchx run launch/components.py:train --config configs/demo.yaml --j 1x2 ...`.

Each is a pure function to an AppDef; what its docstring says of an argument is the argument's help.
"""

# ruff: noqa: UP006, UP035, UP045 torchx checks components by their source and knows typing's old names only
import sys
from typing import Dict, List, Optional

import torchx.specs as specs
from torchx.components.dist import ddp, parse_nnodes

from dmoe.config import load_config
from dmoe.errors import USER_ERROR, UserError


def train(
    *arguments: str,
    config: str,
    data: str = "",
    run: str = "",
    resume: bool = False,
    j: str = "1x1",
    name: str = "dmoe-train",
    image: str = "dmoe:latest",
    cpu: int = 2,
    gpu: int = 0,
    memMB: int = 4096,
    h: Optional[str] = None,
    env: Optional[Dict[str, str]] = None,
    mounts: Optional[List[str]] = None,
    max_retries: int = 0,
    rdzv_port: int = 29500,
) -> specs.AppDef:
    """Trains on any number of nodes and processes. The config is checked here, before anything is submitted.

    Args:
        arguments: further arguments for dmoe.train, behind `--`, such as `--set train.batch_size=4096 train.epochs=2`
        config: the experiment, a YAML file
        data: the data set's folder, in place of the config's data.path
        run: the run's directory, in place of the config's run.dir
        resume: go on from the run's newest sound checkpoint, if it has one
        j: nodes x processes of a node, such as 2x8
        name: the job's name
        image: container image, for the schedulers that use one
        cpu: CPUs of a node
        gpu: GPUs of a node
        memMB: memory of a node in MB
        h: a named resource instead of cpu, gpu and memMB
        env: environment variables of the processes, such as NCCL_DEBUG=INFO,NCCL_SOCKET_IFNAME=eth0
        mounts: mounts of the container
        max_retries: how often the scheduler may start the job anew; give resume=True with it
        rdzv_port: port of the rendezvous on the first node, for several nodes
    """
    overrides = [f"data.path={data}"] * bool(data) + [f"run.dir={run}"] * bool(run)
    given = [argument for argument in arguments if "=" in argument]
    _check(config, overrides + given)
    command = ["--config", config]
    for override in overrides:
        command += ["--set", override]
    command += ["--resume"] * resume
    return ddp(
        *command,
        *arguments,
        m="dmoe.train",
        j=j,
        name=name,
        image=image,
        cpu=cpu,
        gpu=gpu,
        memMB=memMB,
        h=h,
        env={"OMP_NUM_THREADS": str(max(cpu // parse_nnodes(j)[2], 1)), **(env or {})},
        mounts=mounts,
        max_retries=max_retries,
        rdzv_port=rdzv_port,
    )


def _check(config: str, overrides: List[str]) -> None:
    """Ends the launch where the job itself would end: on the laptop, not behind the queue."""
    try:
        load_config(config, overrides)
    except UserError as error:
        print(f"launch/components.py: {error}", file=sys.stderr)
        raise SystemExit(USER_ERROR) from None
