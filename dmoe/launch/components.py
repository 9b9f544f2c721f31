"""torchx components of dmoe: `torchx run launch/components.py:train --config configs/demo.yaml --j 1x2 ...`; docs/cluster.md is the guide.

Each component is a function that returns an AppDef. Its docstring gives the help of its arguments. torchx reads both from this
file's source, so shared arguments are repeated in each component.
"""

# ruff: noqa: UP045 torchx checks components by their source and knows the old names of typing only
import sys
from collections.abc import Callable
from typing import Optional

import torchx.specs as specs

from dmoe.cli.main import checked
from dmoe.cli.train import overrides_of
from dmoe.config.config import setting
from dmoe.errors import USER_ERROR, UserError
from dmoe.launch.checks import check_input, check_ladder, check_model, check_online, check_run, check_training, work_of
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
        config: the config, a YAML file
        data: folder of the data set; overrides data.path of the config
        run: directory of the run; overrides run.dir of the config; the output of each rank is written to its folder logs
        resume: True continues from the newest sound checkpoint of the run, if there is one
        elsewhere: True if data and run are on disks that only the cluster sees; they are not checked on this machine
        j: nodes x processes of each node, such as 2x8; 2 alone starts one process for each GPU of each node
        name: name of the job
        image: container image, for schedulers that use containers
        cpu: CPUs of each node
        gpu: GPUs of each node
        memMB: memory of each node in MB
        h: a named resource, instead of cpu, gpu and memMB, such as h100x8, a100x4 or cpu8
        env: environment variables of the processes, such as NCCL_DEBUG=INFO,NCCL_IB_HCA==mlx5_0,mlx5_1, or as JSON
        mounts: mounts of the container, such as type=bind,src=/shared,dst=/shared
        max_retries: how often the scheduler may restart the job; needs resume True
        rdzv_port: port of the rendezvous on the first node, if there are several nodes
        rdzv_timeout: seconds that a node waits for the other nodes to start
        interface: network interface between the nodes, such as eth0 or ib0, if NCCL and gloo would choose the wrong one
        venv: a virtual environment that the nodes see, put first on the PATH of the job, if the job does not inherit an activated one
    """

    def job() -> specs.AppDef:
        place = Place(name, image, j, cpu, gpu, memMB, h, env, mounts, max_retries, rdzv_port, rdzv_timeout, interface, venv)
        overrides = [*[setting("data.path", data)] * bool(data), *[setting("run.dir", run)] * bool(run)]
        given = checked(["train", "--config", config, *arguments])
        goes_on = resume or given.resume
        if max_retries and not goes_on:
            raise UserError("--max_retries: a restarted job finds an existing run; add --resume True")
        config_ = check_training(given.config, overrides + overrides_of(given), place.ranks, goes_on, place.sees(elsewhere))
        command = ["--config", config, *(part for override in overrides for part in ("--set", override))]
        return distributed_job(place, "dmoe.train", [*command, *["--resume"] * resume, *arguments], _logs(config_.run.dir))

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
    """Follows a log that grows, window by window, and publishes versions. If it is started again, it continues.

    Args:
        arguments: further arguments for dmoe online, behind `--`, such as `--set train.batch_size=4096` or `--once`
        config: the config with its `online` section, a YAML file
        source: folder, glob or prefix to which files are added
        run: folder of the run, on a disk that all nodes see
        publish: folder for versions for dmoe serve, local or remote
        elsewhere: True if source and run are on disks that only the cluster sees
        j: nodes x processes of each node, such as 2x8; 2 alone starts one process for each GPU of each node
        name: name of the job
        image: container image, for schedulers that use containers
        cpu: CPUs of each node
        gpu: GPUs of each node
        memMB: memory of each node in MB
        h: a named resource, instead of cpu, gpu and memMB, such as h100x8
        env: environment variables of the processes, such as NCCL_DEBUG=INFO, or as JSON
        mounts: mounts of the container, such as type=bind,src=/shared,dst=/shared
        max_retries: how often the scheduler may restart the job
        rdzv_port: port of the rendezvous on the first node, if there are several nodes
        rdzv_timeout: seconds that a node waits for the other nodes to start
        interface: network interface between the nodes, such as eth0 or ib0
        venv: a virtual environment that the nodes see, put first on the PATH of the job
    """

    def job() -> specs.AppDef:
        place = Place(name, image, j, cpu, gpu, memMB, h, env, mounts, max_retries, rdzv_port, rdzv_timeout, interface, venv)
        command = ["--config", config, "--source", source, "--run", run, *["--publish", publish] * bool(publish), *arguments]
        given = checked(["online", *command])
        check_online(given.config, given.set, run, place.ranks, place.sees(elsewhere))
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
    """Evaluates the best checkpoint of a run, on any number of ranks.

    Args:
        run: directory of the run
        data: another data set with the same schema; that of the run if absent
        split: the split to evaluate; the test split of the run if absent
        output: file for the metrics, in the directory of the run
        elsewhere: True if the run is on a disk that only the cluster sees; it is not checked on this machine
        j: nodes x processes of each node, such as 2x8; 2 alone starts one process for each GPU of each node
        name: name of the job
        image: container image, for schedulers that use containers
        cpu: CPUs of each node
        gpu: GPUs of each node
        memMB: memory of each node in MB
        h: a named resource, instead of cpu, gpu and memMB, such as h100x8
        env: environment variables of the processes, such as NCCL_DEBUG=INFO, or as JSON
        mounts: mounts of the container, such as type=bind,src=/shared,dst=/shared
        max_retries: how often the scheduler may restart the job
        rdzv_port: port of the rendezvous on the first node, if there are several nodes
        rdzv_timeout: seconds that a node waits for the other nodes to start
        interface: network interface between the nodes, such as eth0 or ib0
        venv: a virtual environment that the nodes see, put first on the PATH of the job
    """

    def job() -> specs.AppDef:
        place = Place(name, image, j, cpu, gpu, memMB, h, env, mounts, max_retries, rdzv_port, rdzv_timeout, interface, venv)
        check_run(run, data, split, place.sees(elsewhere))
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
    """Turns raw logs into a data set, with all cores of one node, or with Ray on several. If it is started again, it continues.

    Args:
        arguments: further arguments for dmoe preprocess, behind `--`, such as `--min-count 10 --split-by time`
        input: a file, folder or glob of the raw log
        output: folder of the data set
        format: kind of log: criteo, avazu or log, as in dmoe preprocess
        engine: local, or ray: run tasks on a Ray cluster of all nodes, which is started for the job
        elsewhere: True if the log is on a disk that only the cluster sees; it is not checked on this machine
        j: nodes x 1; several nodes, such as 4x1, need engine ray and folders that all nodes see
        name: name of the job
        image: container image, for schedulers that use containers
        cpu: CPUs; one thread is started for each
        memMB: memory in MB
        h: a named resource, instead of cpu and memMB, such as cpu32
        env: environment variables of the process, such as NCCL_DEBUG=INFO, or as JSON
        mounts: mounts of the container, such as type=bind,src=/shared,dst=/shared
        max_retries: how often the scheduler may restart the job
        ray_port: port of the Ray head on the first node, if there are several nodes
        rdzv_timeout: seconds that the Ray nodes wait for each other to start
        interface: network interface between the Ray nodes, such as eth0, if host names resolve to another one
        venv: a virtual environment that the node sees, put first on the PATH of the job
    """

    def job() -> specs.AppDef:
        place = Place(name, image, j, cpu, 0, memMB, h, env, mounts, max_retries, ray_port, rdzv_timeout, interface, venv)
        check_input(input, place.sees(elsewhere))
        given = ["preprocess", format, "--input", input, "--output", output, *arguments, *["--engine", engine] * (engine != "local")]
        checked(given)
        if place.ranks.nodes > 1 and engine == "local":
            raise UserError(f"--j {j}: several nodes need Ray; add --engine ray, or give --j 1x1")
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
    """Trains a list of variants over seeds on one node, and reports the results. If it is started again, it continues.

    Args:
        arguments: further arguments for dmoe report ladder, behind `--`, such as `--jobs 4`
        config: the ladder file (YAML), such as configs/ladder_demo.yaml
        output: folder for the runs and the report
        data: folder of the data set; overrides data.path of the variants
        seeds: runs of each variant
        elsewhere: True if the data is on a disk that only the cluster sees; it is not checked on this machine
        j: 1x1; the ladder starts its runs by itself, as many at a time as fit on the node
        name: name of the job
        image: container image, for schedulers that use containers
        cpu: CPUs
        gpu: GPUs
        memMB: memory in MB
        h: a named resource, instead of cpu, gpu and memMB, such as cpu32
        env: environment variables of the process, such as NCCL_DEBUG=INFO, or as JSON
        mounts: mounts of the container, such as type=bind,src=/shared,dst=/shared
        max_retries: how often the scheduler may restart the job
        venv: a virtual environment that the node sees, put first on the PATH of the job
    """

    def job() -> specs.AppDef:
        place = Place(name, image, j, cpu, gpu, memMB, h, env, mounts, max_retries, venv=venv)
        command = ["python", "-m", "dmoe", "report", "ladder", "--config", config, "--output", output, "--seeds", str(seeds)]
        command += [*["--set", setting("data.path", data)] * bool(data), *arguments]
        given = checked(command[3:])
        check_ladder(given.config, given.set, data, place.sees(elsewhere))
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
    """Tests dmoe on these nodes, stage by stage, before anything is trained on them. The report contains no host names.

    Args:
        arguments: further arguments for dmoe accept, behind `--`, such as `--only collectives kernels`
        level: quick: at most 5 minutes; full: at most 20; dense: only stages without TorchRec and FBGEMM
        folder: folder for the runs of the stages, on a disk that all nodes see; without it, several nodes skip those stages
        report: HTML file, written by the first node
        json: file for the same content as JSON
        j: nodes x processes of each node, such as 2x8; 2 alone starts one process for each GPU of each node
        name: name of the job
        image: container image, for schedulers that use containers
        cpu: CPUs of each node
        gpu: GPUs of each node
        memMB: memory of each node in MB
        h: a named resource, instead of cpu, gpu and memMB, such as h100x8
        env: environment variables of the processes, such as NCCL_DEBUG=INFO, or as JSON
        mounts: mounts of the container, such as type=bind,src=/shared,dst=/shared
        max_retries: how often the scheduler may restart the job
        rdzv_port: port of the rendezvous on the first node, if there are several nodes
        rdzv_timeout: seconds that a node waits for the other nodes to start
        interface: network interface between the nodes, such as eth0 or ib0
        venv: a virtual environment that the nodes see, put first on the PATH of the job
    """

    def job() -> specs.AppDef:
        place = Place(name, image, j, cpu, gpu, memMB, h, env, mounts, max_retries, rdzv_port, rdzv_timeout, interface, venv)
        words = ["--level", level, *["--folder", folder] * bool(folder), "--report", report, "--json", json, *arguments]
        checked(["accept", *words])
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
    """Serves a scorer over HTTP on one node, with one worker process for each CPU. For Kubernetes, `dmoe deploy` prints a Deployment.

    Args:
        arguments: further arguments for dmoe serve, behind `--`, such as `--token-file /secrets/token`
        model: folder of the scorer, or a pointer file, which is followed
        port: port to listen on, on all addresses of the node
        elsewhere: True if the scorer is on a disk that only the cluster sees; it is not checked on this machine
        j: 1x1
        name: name of the job
        image: container image, for schedulers that use containers
        cpu: CPUs; one worker process is started for each
        memMB: memory in MB; all workers share the memory of the tables
        h: a named resource, instead of cpu and memMB, such as cpu8
        env: environment variables of the process, or as JSON
        mounts: mounts of the container, such as type=bind,src=/shared,dst=/shared
        max_retries: how often the scheduler may restart the job
        venv: a virtual environment that the node sees, put first on the PATH of the job
    """

    def job() -> specs.AppDef:
        place = Place(name, image, j, cpu, 0, memMB, h, env, mounts, max_retries, venv=venv)
        command = ["python", "-m", "dmoe", "serve", "--model", model, "--host", "0.0.0.0", "--port", str(port)]
        command += ["--workers", str(place.resource.cpu), *arguments]
        checked(command[3:])
        check_model(model, place.sees(elsewhere))
        return single_job(place, "serve", command)

    return _or_one_line(job)


def _logs(run: str) -> str:
    # torchrun can only write to a file system.
    return "" if "://" in run else f"{run.rstrip('/')}/logs"


def _or_one_line(job: Callable[[], specs.AppDef]) -> specs.AppDef:
    """Builds the AppDef; a mistake ends the launch with one line and exit code 2."""
    try:
        return job()
    except UserError as error:
        show(f"launch/components.py: {error}", sys.stderr)
        raise SystemExit(USER_ERROR) from None
