"""`--env` and arguments through torchx's own parser and each scheduler's request, as far as a process: to the byte, or refused."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dmoe.errors import UserError
from dmoe.launch.environment import parse_env
from tests.unit.launch.render import app_of, request_of

CONFIG = str(Path(__file__).parents[3] / "configs/demo.yaml")
ANY = {"A": "x,B=y", "E": "", "Q": 'it\'s "so" `id` \\ !', "N": "two\nlines\n", "T": "${app_id} ${replica_id} $$ $HOME $(E) $", "U": "é😀"}
GIVEN = [
    ("NCCL_IB_HCA==mlx5_0", {"NCCL_IB_HCA": "=mlx5_0"}),
    ("NCCL_IB_HCA==mlx5_0,mlx5_1:1,NCCL_DEBUG=INFO", {"NCCL_IB_HCA": "=mlx5_0,mlx5_1:1", "NCCL_DEBUG": "INFO"}),
    ("TOK=a=b", {"TOK": "a=b"}),
    ("A=x;y;B=z=,;C=1", {"A": "x;y", "B": "z=,", "C": "1"}),
    ("A=,B=1,", {"A": "", "B": "1,"}),
    ("A= x  y , B=q", {"A": " x  y ", "B": "q"}),
    ("A=-n,1,2;3 =4", {"A": "-n,1,2;3 =4"}),
    ("PATH_LIKE=/a:/b,PATH=/bin:/usr/bin", {"PATH_LIKE": "/a:/b", "PATH": "/bin:/usr/bin"}),
    *((f"V={value}", {"V": value}) for value in ANY.values() if ",B=" not in value),
    (json.dumps(ANY), ANY),
]
ARGUMENTS = ["--set", "variant=${app_id} $$ it's", 'run.dir=a "b" $(c)']


@pytest.fixture
def venv(tmp_path):
    """A virtual environment whose python writes down what it was given."""
    (tmp_path / "venv/bin").mkdir(parents=True)
    python = tmp_path / "venv/bin/python"
    python.write_text(f"#!/bin/sh\ncat /proc/self/environ > {tmp_path}/environment\nprintf '%s\\0' \"$@\" > {tmp_path}/arguments\n")
    python.chmod(0o755)
    return tmp_path / "venv"


def run(command, env, folder):
    """What the job's python found: its environment, and its arguments."""
    subprocess.run(command, env={"PATH": os.environ["PATH"], **env}, check=True, cwd=folder)
    lines = (folder / "environment").read_bytes().decode().split("\0")
    return dict(line.partition("=")[::2] for line in lines if line), (folder / "arguments").read_bytes().decode().split("\0")[:-1]


def by_local_cwd(request, folder):
    (replica,) = request.role_params["train"]
    return run(replica.args, replica.env | {"PATH": f"{replica.env['PATH']}:{os.environ['PATH']}"}, folder)


SRUN = """#!{python}
import os, sys
options = [word for word in sys.argv[1:] if word.startswith("--")]
command = sys.argv[1 + len(options):]
(export,) = [word.removeprefix("--export=ALL,") for word in options if word.startswith("--export=ALL,")]
os.environ.update(pair.partition("=")[::2] for pair in export.split(","))
os.execvp(command[0], command)
"""


def by_slurm(request, folder):
    """sbatch's script in a real shell; srun's part is that its --export ends a value at a comma."""
    (folder / "srun").write_text(SRUN.format(python=sys.executable))
    (folder / "srun").chmod(0o755)
    (folder / "script").write_text(request.materialize())
    return run(["bash", "script"], {"PATH": f"{folder}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}, folder)


def by_kubernetes(request, folder):
    """Kubernetes fills in `$(NAME)` in commands and values, and makes `$$` a `$`."""
    (container,) = request.resource["spec"]["tasks"][0]["template"].spec.containers
    known = {}

    def filled(text):
        return re.sub(r"\$\$|\$\((\w+)\)", lambda found: "$" if found[0] == "$$" else known.get(found[1], found[0]), text)

    for variable in container.env:
        known[variable.name] = filled(variable.value)
    return run([filled(word) for word in container.command], known, folder)


@pytest.mark.parametrize("by", [by_local_cwd, by_slurm, by_kubernetes])
@pytest.mark.parametrize(("given", "expected"), GIVEN)
def test_a_value_reaches_the_process_to_the_byte(by, given, expected, venv, tmp_path, monkeypatch):
    arguments = ["--config", CONFIG, "--elsewhere", "True", "--venv", str(venv), "--env", given]
    app = app_of("train", [*arguments, "--data", "a $b ${app_id}", "--run", "'r'", "--", *ARGUMENTS])
    found, words = by(request_of(by.__name__.removeprefix("by_"), app, monkeypatch), tmp_path)
    path = expected.get("PATH")
    assert {key: found.get(key) for key in expected if key != "PATH"} == {key: value for key, value in expected.items() if key != "PATH"}
    assert path is None or found["PATH"] == f"{venv}/bin:{path}"
    assert words[words.index("dmoe.train") + 1 :] == [
        *["--config", CONFIG, "--set", "data.path=a $b ${app_id}", "--set", "run.dir=\"'r'\""],
        *ARGUMENTS,
    ]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("a", "a"),
        ("=x", "''"),
        ("A=1,A=2", "A is given twice"),
        ('{"A": "1", "A": "2"}', "'A' stands twice"),
        ("A-B=1", "A-B"),
        ("1A=1", "1A"),
        ("A=''", "A=''"),
        ('A=x,B=""', 'B=""'),
        ('{"A": 1}', "A is 1"),
        ('{"A": null}', "A is None"),
        ('{"A": "\\u0000"}', "NUL"),
        ("A=\udcff", "UTF-8"),
        ('{"A": "1"', "not JSON"),
    ],
)
def test_what_cannot_be_passed_is_refused_by_name(given, named):
    with pytest.raises(UserError) as refused:
        parse_env(given)
    assert str(refused.value).startswith("--env")
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["20240301", "1e-3", "yes", "null", "010", "1:30", "2024-03-01", "a: b", "[x", "# a", "'q", " a", "é"])
def test_a_path_is_text_whatever_yaml_would_make_of_it(name):
    """As the job's own parser and config read it."""
    from dmoe.cli.main import parse
    from dmoe.cli.train import overrides_of
    from dmoe.config.config import load_config

    app = app_of("train", ["--config", CONFIG, "--elsewhere", "True", "--data", name, "--run", name, "--", "--init-from", name])
    words = shlex.split(app.roles[0].args[1])
    *_, parsed = parse(["train", *words[words.index("dmoe.train") + 1 :]])
    config = load_config(parsed.config, overrides_of(parsed))
    assert config.data.path == config.run.dir == config.train.init_from == name


@pytest.mark.parametrize(
    "further",
    [
        ["--set=train.epochs=7"],
        ["--set", "train.epochs=7"],
        ["--set=variant=a=b", "--set=train.epochs=7"],
        ["--se", "train.epochs=7"],
        ["--config", CONFIG, "--set=train.epochs=7", "--resume"],
    ],
)
def test_the_launch_reads_arguments_as_the_program_does(further, capsys):
    given = ["--config", CONFIG, "--elsewhere", "True", "--data", "d", "--run", "r", "--"]
    words = shlex.split(app_of("train", [*given, *further]).roles[0].args[1])
    assert words[-len(further) :] == further
    with pytest.raises(SystemExit) as ended:
        app_of("train", [*given, *[word.replace("epochs=7", "epochs=x") for word in further]])
    assert ended.value.code == 2
    assert "train.epochs" in capsys.readouterr().err


def test_the_ladder_s_overrides_are_checked_too(capsys):
    config = str(Path(CONFIG).parent / "ladder_demo.yaml")
    with pytest.raises(SystemExit) as ended:
        app_of("ladder", ["--config", config, "--output", "o", "--elsewhere", "True", "--", "--set=train.epochs=x"])
    assert ended.value.code == 2
    assert "train.epochs" in capsys.readouterr().err
