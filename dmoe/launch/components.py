"""torchx components of dmoe: `torchx run launch/components.py:train --config configs/demo.yaml --j 1x2 ...`; docs/cluster.md is the guide.

Each is a pure function to an AppDef; what its docstring says of an argument is the argument's help. torchx reads both from the source text
of this file, so the arguments that components share stand in each.
"""

# ruff: noqa: UP045 torchx checks components by their source and knows the old names of typing only
import sys
from collections.abc import Callable
from typing import Optional

import torchx.specs as specs

from dmoe.cli.train import overrides_of
from dmoe.config import setting
from dmoe.errors import USER_ERROR, UserError
from dmoe.launch.checks import check_arguments, check_input, check_ladder, check_model, check_online, check_run, check_training, work_of
from dmoe.launch.job import Place, distributed_job, ray_job, single_job
from dmoe.names import show


def train(
    *arguments: str,
    config: str,
    data: str = "",
    run: str = "",
    resume: bool = False,
    elsewhere: bool = False,
    j: str = "1x1",
    name: str = "dmoe-train",
    image: str = "dmoe:latest",
    cpu: int = 2,
    gpu: int = 0,
    memMB: int = 4096,
    h: Optional[str] = None,
    env: str = "",
    mounts: str = "",
    max_retries: int = 0,
    rdzv_port: int = 29500,
    rdzv_timeout: int = 900,
    interface: str = "",
    venv: str = "",
) -> specs.AppDef:
    """Trains on any number of nodes and processes. Config, data and run are checked here, before anything is submitted.

    Args:
        arguments: further arguments for dmoe.train, behind `--`, such as `--set train.batch_size=4096 train.epochs=2`
        config: the experiment, a YAML file
        data: the data set's folder, in place of the config's data.path
        run: the run's directory, in place of the config's run.dir; each rank's output is kept in its logs folder
        resume: True goes on from the run's newest sound checkpoint, if it has one, and else begins
        elsewhere: True where data and run lie on disks that only the cluster sees: they are not looked for here
        j: nodes x processes of a node, such as 2x8; 2 alone gives each node a process for each of its GPUs
        name: the job's name
        image: container image, for the schedulers that use one
        cpu: CPUs of a node
        gpu: GPUs of a node
        memMB: memory of a node in MB
        h: a named resource instead of cpu, gpu and memMB, such as h100x8, a100x4 or cpu8
        env: environment variables of the processes, such as NCCL_DEBUG=INFO,NCCL_IB_HCA==mlx5_0,mlx5_1, or as JSON
        mounts: mounts of the container, such as type=bind,src=/shared,dst=/shared
        max_retries: how often the scheduler may start the job anew; needs resume True
        rdzv_port: port of the rendezvous on the first node, for several nodes
        rdzv_timeout: seconds that a node waits for the others to come up
        interface: network interface between the nodes, such as eth0 or ib0, where the first that NCCL and gloo find is the wrong one
        venv: a virtual environment that the nodes see, put first on the job's PATH, where the job does not inherit an activated one
    """

    def job() -> specs.AppDef:
        place = Place(name, image, j, cpu, gpu, memMB, h, env, mounts, max_retries, rdzv_port, rdzv_timeout, interface, venv)
        overrides = [*[setting("data.path", data)] * bool(data), *[setting("run.dir", run)] * bool(run)]
        given = check_arguments(["train", "--config", config, *arguments])
        goes_on = resume or given.resume
        if max_retries and not goes_on:
            raise UserError("--max_retries: a job that starts anew finds its run begun; give --resume True with it")
        checked = check_training(given.config, overrides + overrides_of(given), place.ranks, goes_on, elsewhere, place.mounted)
        command = ["--config", config, *(part for override in overrides for part in ("--set", override))]
        return distributed_job(place, "dmoe.train", [*command, *["--resume"] * resume, *arguments], _logs(checked.run.dir))

    return _or_one_line(job)


def online(
    *arguments: str,
    config: str,
    source: str,
    run: str,
    publish: str = "",
    elsewhere: bool = False,
    j: str = "1x1",
    name: str = "dmoe-online",
    image: str = "dmoe:latest",
    cpu: int = 2,
    gpu: int = 0,
    memMB: int = 4096,
    h: Optional[str] = None,
    env: str = "",
    mounts: str = "",
    max_retries: int = 1000,
    rdzv_port: int = 29500,
    rdzv_timeout: int = 900,
    interface: str = "",
    venv: str = "",
) -> specs.AppDef:
    """Follows a log that grows, window by window, and publishes versions. Started again, it goes on where it was.

    Args:
        arguments: further arguments for dmoe online, behind `--`, such as `--set train.batch_size=4096` or `--once`
        config: the experiment with its online part, a YAML file
        source: folder, glob or prefix that fills with files
        run: folder of the run, on a disk that all nodes see
        publish: folder that gets versions for dmoe serve, local or remote
        elsewhere: True where source and run lie on disks that only the cluster sees
        j: nodes x processes of a node, such as 2x8; 2 alone gives each node a process for each of its GPUs
        name: the job's name
        image: container image, for the schedulers that use one
        cpu: CPUs of a node
        gpu: GPUs of a node
        memMB: memory of a node in MB
        h: a named resource instead of cpu, gpu and memMB, such as h100x8
        env: environment variables of the processes, such as NCCL_DEBUG=INFO, or as JSON
        mounts: mounts of the container, such as type=bind,src=/shared,dst=/shared
        max_retries: how often the scheduler may start the job anew
        rdzv_port: port of the rendezvous on the first node, for several nodes
        rdzv_timeout: seconds that a node waits for the others to come up
        interface: network interface between the nodes, such as eth0 or ib0
        venv: a virtual environment that the nodes see, put first on the job's PATH
    """

    def job() -> specs.AppDef:
        place = Place(name, image, j, cpu, gpu, memMB, h, env, mounts, max_retries, rdzv_port, rdzv_timeout, interface, venv)
        command = ["--config", config, "--source", source, "--run", run, *["--publish", publish] * bool(publish), *arguments]
        given = check_arguments(["online", *command])
        check_online(given.config, given.set, run, place.ranks, elsewhere, place.mounted)
        return distributed_job(place, "dmoe.online", command, _logs(run))

    return _or_one_line(job)


def evaluate(
    run: str,
    data: str = "",
    split: str = "",
    output: str = "evaluation.json",
    elsewhere: bool = False,
    j: str = "1x1",
    name: str = "dmoe-evaluate",
    image: str = "dmoe:latest",
    cpu: int = 2,
    gpu: int = 0,
    memMB: int = 4096,
    h: Optional[str] = None,
    env: str = "",
    mounts: str = "",
    max_retries: int = 0,
    rdzv_port: int = 29500,
    rdzv_timeout: int = 900,
    interface: str = "",
    venv: str = "",
) -> specs.AppDef:
    """Evaluates a run's best checkpoint, on as many ranks as the tables need: not necessarily those it was trained on.

    Args:
        run: the run's directory
        data: another data set of the same schema; the run's own where absent
        split: the split to evaluate; the run's test split where absent
        output: file in the run's directory that gets the figures
        elsewhere: True where the run lies on a disk that only the cluster sees: it is not looked for here
        j: nodes x processes of a node, such as 2x8; 2 alone gives each node a process for each of its GPUs
        name: the job's name
        image: container image, for the schedulers that use one
        cpu: CPUs of a node
        gpu: GPUs of a node
        memMB: memory of a node in MB
        h: a named resource instead of cpu, gpu and memMB, such as h100x8
        env: environment variables of the processes, such as NCCL_DEBUG=INFO, or as JSON
        mounts: mounts of the container, such as type=bind,src=/shared,dst=/shared
        max_retries: how often the scheduler may start the job anew
        rdzv_port: port of the rendezvous on the first node, for several nodes
        rdzv_timeout: seconds that a node waits for the others to come up
        interface: network interface between the nodes, such as eth0 or ib0
        venv: a virtual environment that the nodes see, put first on the job's PATH
    """

    def job() -> specs.AppDef:
        place = Place(name, image, j, cpu, gpu, memMB, h, env, mounts, max_retries, rdzv_port, rdzv_timeout, interface, venv)
        check_run(run, data, split, elsewhere, place.mounted)
        arguments = ["--run", run, *["--data", data] * bool(data), *["--split", split] * bool(split), "--output", output]
        return distributed_job(place, "dmoe.evaluate", arguments, _logs(run))

    return _or_one_line(job)


def preprocess(
    *arguments: str,
    input: str,
    output: str,
    format: str = "criteo",
    engine: str = "local",
    elsewhere: bool = False,
    j: str = "1x1",
    name: str = "dmoe-preprocess",
    image: str = "dmoe:latest",
    cpu: int = 8,
    memMB: int = 16384,
    h: Optional[str] = None,
    env: str = "",
    mounts: str = "",
    max_retries: int = 0,
    ray_port: int = 6379,
    rdzv_timeout: int = 900,
    interface: str = "",
    venv: str = "",
) -> specs.AppDef:
    """Turns raw logs into a data set, with all cores of one node, or of several by Ray. Started again, it goes on.

    Args:
        arguments: further arguments for dmoe preprocess, behind `--`, such as `--min-count 10 --split-by time`
        input: a file, folder or glob of the raw log
        output: folder of the data set
        format: what the log is, as dmoe preprocess names it
        engine: local, or ray: each stage's tasks are Ray's, on a cluster of all nodes that is started for the job
        elsewhere: True where the log lies on a disk that only the cluster sees: it is not looked for here
        j: nodes x 1; several, such as 4x1, with engine ray, and folders that all of them see
        name: the job's name
        image: container image, for the schedulers that use one
        cpu: CPUs, each a thread
        memMB: memory in MB
        h: a named resource instead of cpu and memMB, such as cpu32
        env: environment variables of the process, such as NCCL_DEBUG=INFO, or as JSON
        mounts: mounts of the container, such as type=bind,src=/shared,dst=/shared
        max_retries: how often the scheduler may start the job anew
        ray_port: port of Ray's head on the first node, for several nodes
        rdzv_timeout: seconds that Ray's nodes wait for each other to come up
        interface: network interface between Ray's nodes, such as eth0, where a host's name leads to another
        venv: a virtual environment that the node sees, put first on the job's PATH
    """

    def job() -> specs.AppDef:
        place = Place(name, image, j, cpu, 0, memMB, h, env, mounts, max_retries, ray_port, rdzv_timeout, interface, venv)
        check_input(input, elsewhere, place.mounted)
        given = ["preprocess", format, "--input", input, "--output", output, *arguments, *["--engine", engine] * (engine != "local")]
        check_arguments(given)
        if place.ranks.nodes > 1 and engine == "local":
            raise UserError(f"--j {j}: several nodes share the work by Ray; add --engine ray, or give --j 1x1")
        command = ["python", "-m", "dmoe", "preprocess", format, "--input", input, "--output", output]
        if engine == "ray" and place.ranks.nodes > 1:
            return ray_job(place, "preprocess", [*command, "--engine", engine, *arguments], f"{work_of(given).rstrip('/')}.ray-token")
        command += ["--workers", str(place.resource.cpu), *["--engine", engine] * (engine != "local")]
        return single_job(place, "preprocess", [*command, *arguments])

    return _or_one_line(job)


def ladder(
    *arguments: str,
    config: str,
    output: str,
    data: str = "",
    seeds: int = 5,
    elsewhere: bool = False,
    j: str = "1x1",
    name: str = "dmoe-ladder",
    image: str = "dmoe:latest",
    cpu: int = 8,
    gpu: int = 0,
    memMB: int = 16384,
    h: Optional[str] = None,
    env: str = "",
    mounts: str = "",
    max_retries: int = 0,
    venv: str = "",
) -> specs.AppDef:
    """Trains a list of variants over seeds on one node and reports what the data supports. Started again, it goes on.

    Args:
        arguments: further arguments for dmoe report ladder, behind `--`, such as `--jobs 4`
        config: the ladder, a YAML file such as configs/ladder_demo.yaml
        output: folder of the runs and the report
        data: the data set's folder, in place of the variants' data.path
        seeds: runs of each variant
        elsewhere: True where the data lies on a disk that only the cluster sees: it is not looked for here
        j: 1x1; the ladder starts its runs by itself, as many at a time as the node takes
        name: the job's name
        image: container image, for the schedulers that use one
        cpu: CPUs
        gpu: GPUs
        memMB: memory in MB
        h: a named resource instead of cpu, gpu and memMB, such as cpu32
        env: environment variables of the process, such as NCCL_DEBUG=INFO, or as JSON
        mounts: mounts of the container, such as type=bind,src=/shared,dst=/shared
        max_retries: how often the scheduler may start the job anew
        venv: a virtual environment that the node sees, put first on the job's PATH
    """

    def job() -> specs.AppDef:
        place = Place(name, image, j, cpu, gpu, memMB, h, env, mounts, max_retries, venv=venv)
        command = ["python", "-m", "dmoe", "report", "ladder", "--config", config, "--output", output, "--seeds", str(seeds)]
        command += [*["--set", setting("data.path", data)] * bool(data), *arguments]
        given = check_arguments(command[3:])
        check_ladder(given.config, given.set, data, elsewhere, place.mounted)
        return single_job(place, "ladder", command)

    return _or_one_line(job)


def accept(
    *arguments: str,
    level: str = "quick",
    folder: str = "",
    report: str = "accept.html",
    json: str = "accept.json",
    j: str = "1x1",
    name: str = "dmoe-accept",
    image: str = "dmoe:latest",
    cpu: int = 2,
    gpu: int = 0,
    memMB: int = 8192,
    h: Optional[str] = None,
    env: str = "",
    mounts: str = "",
    max_retries: int = 0,
    rdzv_port: int = 29500,
    rdzv_timeout: int = 900,
    interface: str = "",
    venv: str = "",
) -> specs.AppDef:
    """Proves dmoe on these nodes, stage by stage, before anything is trained on them; the report has no host names.

    Args:
        arguments: further arguments for dmoe accept, behind `--`, such as `--only collectives kernels`
        level: quick takes 5 minutes at most, full 20; dense needs neither TorchRec nor FBGEMM
        folder: on a disk that all nodes see, for the runs of the stages; several nodes skip those stages without one
        report: file for the page, written by the first node
        json: file for the same content as JSON
        j: nodes x processes of a node, such as 2x8; 2 alone gives each node a process for each of its GPUs
        name: the job's name
        image: container image, for the schedulers that use one
        cpu: CPUs of a node
        gpu: GPUs of a node
        memMB: memory of a node in MB
        h: a named resource instead of cpu, gpu and memMB, such as h100x8
        env: environment variables of the processes, such as NCCL_DEBUG=INFO, or as JSON
        mounts: mounts of the container, such as type=bind,src=/shared,dst=/shared
        max_retries: how often the scheduler may start the job anew
        rdzv_port: port of the rendezvous on the first node, for several nodes
        rdzv_timeout: seconds that a node waits for the others to come up
        interface: network interface between the nodes, such as eth0 or ib0
        venv: a virtual environment that the nodes see, put first on the job's PATH
    """

    def job() -> specs.AppDef:
        place = Place(name, image, j, cpu, gpu, memMB, h, env, mounts, max_retries, rdzv_port, rdzv_timeout, interface, venv)
        words = ["--level", level, *["--folder", folder] * bool(folder), "--report", report, "--json", json, *arguments]
        check_arguments(["accept", *words])
        return distributed_job(place, "dmoe.accept", words, "")

    return _or_one_line(job)


def serve(
    *arguments: str,
    model: str,
    port: int = 8080,
    elsewhere: bool = False,
    j: str = "1x1",
    name: str = "dmoe-serve",
    image: str = "dmoe:latest",
    cpu: int = 2,
    memMB: int = 4096,
    h: Optional[str] = None,
    env: str = "",
    mounts: str = "",
    max_retries: int = 0,
    venv: str = "",
) -> specs.AppDef:
    """Serves a scorer over HTTP on one node, a worker process for each of its cores. For Kubernetes, `dmoe deploy` prints a Deployment.

    Args:
        arguments: further arguments for dmoe serve, behind `--`, such as `--token-file /secrets/token`
        model: the scorer's folder, or a pointer file that is followed
        port: to listen on, on all of the node's addresses
        elsewhere: True where the scorer lies on a disk that only the cluster sees: it is not looked for here
        j: 1x1
        name: the job's name
        image: container image, for the schedulers that use one
        cpu: CPUs, each a worker process
        memMB: memory in MB; pages of the tables count once, however many workers map them
        h: a named resource instead of cpu and memMB, such as cpu8
        env: environment variables of the process, or as JSON
        mounts: mounts of the container, such as type=bind,src=/shared,dst=/shared
        max_retries: how often the scheduler may start the job anew
        venv: a virtual environment that the node sees, put first on the job's PATH
    """

    def job() -> specs.AppDef:
        place = Place(name, image, j, cpu, 0, memMB, h, env, mounts, max_retries, venv=venv)
        command = ["python", "-m", "dmoe", "serve", "--model", model, "--host", "0.0.0.0", "--port", str(port)]
        command += ["--workers", str(place.resource.cpu), *arguments]
        check_arguments(command[3:])
        check_model(model, elsewhere, place.mounted)
        return single_job(place, "serve", command)

    return _or_one_line(job)


def _logs(run: str) -> str:
    # torchrun writes through the file system alone.
    return "" if "://" in run else f"{run.rstrip('/')}/logs"


def _or_one_line(job: Callable[[], specs.AppDef]) -> specs.AppDef:
    """Ends the launch where the job itself would end: on the laptop, not behind the queue."""
    try:
        return job()
    except UserError as error:
        show(f"launch/components.py: {error}", sys.stderr)
        raise SystemExit(USER_ERROR) from None
