import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from torchx.specs import get_named_resources, macros, materialize_appdef
from torchx.specs.file_linter import get_fn_docstring, validate

from dmoe.cli.main import parse
from dmoe.launch import components
from dmoe.launch.resources import PRESETS
from dmoe.testing.growing_log import write_config
from dmoe.testing.small_data import make_data_set

ROOT = Path(__file__).parents[3]
CONFIG = str(ROOT / "configs/demo.yaml")
NAMES = ("train", "evaluate", "preprocess", "ladder", "accept", "serve", "online")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("data")
    make_data_set(folder, rows={"train": 100, "validation": 50, "test": 50})
    return str(folder)


def train(*arguments: str):
    return materialize_appdef(components.train, ["--config", CONFIG, *arguments])


def command_of(app) -> list[str]:
    return shlex.split(app.roles[0].args[1])


def message_of(capsys: pytest.CaptureFixture[str], component: str, *arguments: str) -> str:
    """What a mistake says: one line and exit code 2."""
    with pytest.raises(SystemExit) as ended:
        materialize_appdef(getattr(components, component), list(arguments))
    assert ended.value.code == 2
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    return text


@pytest.mark.parametrize("name", NAMES)
def test_torchx_accepts_the_component_and_every_argument_has_a_help(name):
    path = str(ROOT / "launch/components.py")
    assert validate(path, name) == []
    _, helps = get_fn_docstring(getattr(components, name))
    assert all(text.strip() for text in helps.values()), helps


def test_torchx_finds_the_component_from_any_folder(tmp_path, data):
    command = [str(Path(sys.executable).parent / "torchx"), "run", "--dryrun", "--scheduler", "slurm"]
    command += [f"{ROOT / 'launch/components.py'}:train", "--config", CONFIG, "--data", data, "--run", "r", "--j", "2x2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--nnodes 2 --nproc-per-node 2" in done.stdout


def test_train_gives_the_job_its_config_data_and_run(data):
    app = train("--data", data, "--run", "runs/a", "--j", "2x4", "--resume", "True", "--", "--set", "train.epochs=2", "train.seed=3")
    command = command_of(app)
    assert app.roles[0].num_replicas == app.roles[0].min_replicas == 2
    expected = ["--config", CONFIG, "--set", f"data.path={data}", "--set", "run.dir=runs/a", "--resume"]
    assert command[command.index("dmoe.train") + 1 :] == [*expected, "--set", "train.epochs=2", "train.seed=3"]
    assert command[command.index("--log-dir") + 1].startswith("runs/a/logs/node-")


def test_logs_stay_on_the_node_where_the_run_is_in_an_object_store(data):
    assert "--log-dir" not in command_of(train("--data", data, "--run", "s3://bucket/a", "--elsewhere", "True"))


def test_a_preset_is_what_a_node_is_asked_for(data):
    role = train("--data", data, "--run", "r", "--h", "h100x8", "--j", "2").roles[0]
    assert role.resource == PRESETS["h100x8"]
    assert command_of(train("--data", data, "--run", "r", "--h", "h100x8", "--j", "2")).count("8") == 1
    assert role.env["OMP_NUM_THREADS"] == "12"
    assert train("--data", data, "--run", "r", "--h", "aws_p5.48xlarge").roles[0].resource == get_named_resources("aws_p5.48xlarge")


def test_a_value_with_a_comma_is_set_by_the_shell_since_srun_would_cut_it(data):
    role = train("--data", data, "--run", "r", "--env", "NCCL_IB_HCA=mlx5_0,mlx5_1,NCCL_DEBUG=INFO").roles[0]
    assert role.args[1].startswith("export NCCL_IB_HCA=mlx5_0,mlx5_1; python -m dmoe.torchrun ")
    assert role.env["NCCL_DEBUG"] == "INFO"
    assert "NCCL_IB_HCA" not in role.env


def test_interface_and_environment_reach_the_processes(data):
    role = train("--data", data, "--run", "r", "--interface", "ib0", "--venv", "/shared/venv").roles[0]
    assert role.env["NCCL_SOCKET_IFNAME"] == role.env["GLOO_SOCKET_IFNAME"] == "ib0"
    assert role.args[1].startswith("export PATH=/shared/venv/bin:")


MISTAKES = [
    (["--config", "no.yaml"], "--config no.yaml: no such file"),
    (["--config", CONFIG, "--data", "d"], "--run: "),
    (["--config", CONFIG, "--run", "r"], "--data: "),
    (["--config", CONFIG, "--run", "r", "--data", "nowhere"], "no manifest.json in 'nowhere'"),
    (["--config", CONFIG, "--run", "r", "--data", "D", "--", "--set", "train.batchsize=3"], "unknown key, did you mean 'batch_size'?"),
    (["--config", CONFIG, "--run", "r", "--data", "D", "--", "--trase", "1:2"], "dmoe train: unrecognized arguments: --trase"),
    (["--config", CONFIG, "--run", "r", "--data", "D", "--j", "2by2"], "expected NODESxPROCS"),
    (["--config", CONFIG, "--run", "r", "--data", "D", "--j", "0x2"], "at least one node"),
    (["--config", CONFIG, "--run", "r", "--data", "D", "--h", "h1000x8"], "did you mean 'h100x8'?"),
    (["--config", CONFIG, "--run", "r", "--data", "D", "--h", "h100x4", "--j", "1x8"], "8 processes on a node with 4 GPUs"),
    (["--config", CONFIG, "--run", "r", "--data", "D", "--mounts", "type=bound,src=/a,dst=/b"], "invalid mount type"),
    (["--config", CONFIG, "--run", "r", "--data", "D", "--max_retries", "2"], "--resume True"),
    (["--config", CONFIG, "--run", "r", "--data", "D", "--j", "64x32"], "train.batch_size: "),
]


MISTAKES += [
    (["--config", CONFIG, "--run", "r", "--data", "D", "--", *further], "train.init_from: nowhere: neither a checkpoint nor a run with one")
    for further in (["--init-from", "nowhere"], ["--set", "train.init_from=nowhere"])
]


@pytest.mark.parametrize(("arguments", "expected"), MISTAKES)
def test_a_mistake_is_one_line_before_anything_is_submitted(capsys, data, arguments, expected):
    assert expected in message_of(capsys, "train", *(data if argument == "D" else argument for argument in arguments))


def test_data_without_the_split_that_the_config_trains_on_is_refused(capsys, data):
    arguments = ["--config", CONFIG, "--run", "r", "--data", data, "--", "--set", "data.test_split=tset"]
    assert "no split 'tset', did you mean 'test'?" in message_of(capsys, "train", *arguments)


def test_a_run_that_is_there_is_not_begun_again(capsys, data, tmp_path):
    (tmp_path / "config.yaml").write_text("")
    arguments = ["--config", CONFIG, "--data", data, "--run", str(tmp_path)]
    assert "holds a run already" in message_of(capsys, "train", *arguments)
    assert train("--data", data, "--run", str(tmp_path), "--resume", "True")


def test_paths_that_only_the_job_sees_are_not_looked_for():
    assert train("--data", "/far/data", "--run", "/far/run", "--elsewhere", "True")
    assert train("--data", "/far/data", "--run", "/far/run", "--mounts", "type=bind,src=/disk,dst=/far")
    assert train("--data", "s3://bucket/data", "--run", "s3://bucket/run")


def test_evaluate_needs_a_run(capsys, data, tmp_path):
    assert "no run there" in message_of(capsys, "evaluate", "--run", str(tmp_path))
    (tmp_path / "config.yaml").write_text("")
    shutil.copy(Path(data) / "manifest.json", tmp_path)
    assert "did you mean 'test'?" in message_of(capsys, "evaluate", "--run", str(tmp_path), "--split", "tset")
    assert "no manifest.json in 'nowhere'" in message_of(capsys, "evaluate", "--run", str(tmp_path), "--data", "nowhere")
    command = command_of(materialize_appdef(components.evaluate, ["--run", str(tmp_path), "--j", "2x2", "--split", "test"]))
    assert command[command.index("dmoe.evaluate") + 1 :] == ["--run", str(tmp_path), "--split", "test", "--output", "evaluation.json"]


def test_preprocess_is_a_process_of_a_node_with_the_cores_it_asks_for(capsys, tmp_path):
    log = tmp_path / "day_0.tsv"
    log.write_text("")
    app = materialize_appdef(
        components.preprocess, ["--input", f"{tmp_path}/day_*.tsv", "--output", "o", "--h", "cpu16", "--", "--min-count", "2"]
    )
    expected = ["python", "-m", "dmoe", "preprocess", "criteo", "--input", f"{tmp_path}/day_*.tsv", "--output", "o"]
    assert command_of(app) == [*expected, "--workers", "16", "--min-count", "2"]
    assert "no such file" in message_of(capsys, "preprocess", "--input", f"{tmp_path}/nights", "--output", "o")
    given = ["--input", str(log), "--output", "o"]
    assert "preprocess is one process on one node" in message_of(capsys, "preprocess", *given, "--j", "1x2")
    assert "unrecognized arguments: --min-cuont 2" in message_of(capsys, "preprocess", *given, "--", "--min-cuont", "2")
    assert "invalid choice: 'crieto'" in message_of(capsys, "preprocess", *given, "--format", "crieto")


def ray_command(*arguments: str, node: str = "1") -> list[str]:
    app = materialize_appdef(components.preprocess, ["--engine", "ray", *arguments])
    return shlex.split(macros.Values("", "job", node, "FIRST").apply(app.roles[0]).args[1])


def test_preprocess_with_ray_is_a_cluster_of_all_nodes_and_the_command_on_the_first(capsys, tmp_path):
    from dmoe.ray_nodes import make_parser

    (tmp_path / "day_0.tsv").write_text("")
    given = ["--input", str(tmp_path), "--output", "o", "--cpu", "6"]
    command = ray_command(*given, "--j", "3x1", "--interface", "ib0", "--", "--min-count", "2", "--work", "/shared/w")
    assert command[:3] == ["python", "-m", "dmoe.ray_nodes"]
    parsed = make_parser().parse_args(command[3:])
    assert (parsed.nodes, parsed.node, parsed.head, parsed.cpus, parsed.interface) == (3, 1, "${FIRST:=localhost}:6379", 6, "ib0")
    assert parsed.token == "/shared/w.ray-token"
    assert parsed.command[:4] == ["python", "-m", "dmoe", "preprocess"]
    _, _, driver = parse([*parsed.command[3:], "--ray-address", "h:6379"])
    assert (driver.engine, driver.min_count, driver.workers) == ("ray", 2, 0)
    one = ray_command(*given)
    assert one[:4] == ["python", "-m", "dmoe", "preprocess"]
    assert one[-4:] == ["--workers", "6", "--engine", "ray"]
    far = ["--input", str(tmp_path), "--output", "s3://b/o", "--j", "2x1", "--engine", "ray"]
    assert "--output s3://b/o: remote; name a folder that all nodes see" in message_of(capsys, "preprocess", *far)
    assert "one process of a node, such as 2x1" in message_of(capsys, "preprocess", *given, "--engine", "ray", "--j", "2x2")
    assert "invalid choice: 'rey'" in message_of(capsys, "preprocess", *given, "--engine", "rey")
    assert "avazu" in ray_command(*given, "--format", "avazu")


@pytest.mark.parametrize("given", [["criteo"], ["log", "--schema", "s.yaml"], ["avazu"]])
def test_preprocess_on_several_nodes_is_ray_s(capsys, tmp_path, given):
    (tmp_path / "log.csv").write_text("")
    arguments = ["--input", str(tmp_path), "--output", "o", "--format", given[0]]
    further = ["--", *given[1:]] if given[1:] else []
    for j in ("2x1", "16x1"):
        message = message_of(capsys, "preprocess", *arguments, "--j", j, *further)
        assert f"--j {j}" in message
        assert "--engine ray" in message


def test_ladder_is_one_process_whose_variants_are_checked(capsys, data, tmp_path):
    config = str(ROOT / "configs/ladder_demo.yaml")
    app = materialize_appdef(components.ladder, ["--config", config, "--output", "o", "--data", data, "--seeds", "2", "--", "--jobs", "4"])
    expected = ["python", "-m", "dmoe", "report", "ladder", "--config", config, "--output", "o", "--seeds", "2"]
    assert command_of(app) == [*expected, "--set", f"data.path={data}", "--jobs", "4"]
    assert "no such file" in message_of(capsys, "ladder", "--config", "no.yaml", "--output", "o")
    assert "unrecognized arguments: --jbos 2" in message_of(capsys, "ladder", "--config", config, "--output", "o", "--", "--jbos", "2")


def test_online_is_checked_and_gets_its_arguments(capsys, tmp_path):
    config = write_config(tmp_path)
    given = ["--config", config, "--source", "s3://logs/", "--run", "r"]
    app = materialize_appdef(components.online, [*given, "--publish", "p", "--j", "1x2", "--", "--once"])
    command = command_of(app)
    assert command[command.index("dmoe.online") + 1 :] == [*given, "--publish", "p", "--once"]
    assert "optimizer.schedule.decay" in message_of(capsys, "online", "--config", CONFIG, *given[2:])
    assert "online.schema_file" in message_of(capsys, "online", *given, "--", "--set", "online.schema_file=")
    assert "remote" in message_of(capsys, "online", *given[:4], "--run", "s3://bucket/run")
    assert "unrecognized arguments: --ocne" in message_of(capsys, "online", *given, "--", "--ocne")


def test_torchrun_takes_none_of_the_programs_options_for_its_own(data):
    from torch.distributed.run import get_args_parser

    for app in (train("--data", data, "--run", "r"), materialize_appdef(components.evaluate, ["--run", "s3://bucket/r"])):
        command = command_of(app)
        parsed = get_args_parser().parse_args(command[command.index("dmoe.torchrun") + 1 :])
        assert parsed.training_script == command[command.index("--") + 1]
        assert parsed.training_script_args == command[command.index("--") + 2 :]


def test_accept_is_a_supervisor_for_each_rank_and_its_options_are_checked(capsys):
    app = materialize_appdef(components.accept, ["--j", "2x8", "--folder", "/shared/a", "--", "--only", "collectives"])
    command = command_of(app)
    expected = ["--level", "quick", "--folder", "/shared/a", "--report", "accept.html", "--json", "accept.json", "--only", "collectives"]
    assert command[command.index("dmoe.accept") + 1 :] == expected
    assert command[command.index("--nproc-per-node") + 1] == "8"
    assert app.roles[0].name == "accept"
    assert "invalid choice: 'quik'" in message_of(capsys, "accept", "--level", "quik")


def test_serve_is_a_worker_for_each_core_of_a_node(tmp_path, capsys):
    app = materialize_appdef(components.serve, ["--model", str(tmp_path), "--port", "80", "--h", "cpu4", "--", "--batch-us", "0"])
    command = command_of(app)
    assert command[command.index("serve") + 1 :] == [
        *["--model", str(tmp_path), "--host", "0.0.0.0", "--port", "80", "--workers", "4", "--batch-us", "0"]
    ]
    assert parse(command[command.index("dmoe") + 1 :])[2].workers == 4
    assert "--model nothing" in message_of(capsys, "serve", "--model", "nothing")
    assert "--wrkers" in message_of(capsys, "serve", "--model", str(tmp_path), "--", "--wrkers", "2")
    assert materialize_appdef(components.serve, ["--model", "/far/away", "--elsewhere", "True"]).roles[0].num_replicas == 1
