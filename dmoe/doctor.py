"""Is this machine able to run dmoe, and if not, which command mends it?

Every check that imports a compiled package runs in a process of its own: a triple that does not fit can end the process that loads it.
"""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from dmoe.version import version_of

REINSTALL = "rm -rf .venv && make venv"
SECONDS = 180


@dataclass(frozen=True)
class Finding:
    """What a check found; `mend` is the command that mends it, empty where all is well."""

    check: str
    found: str
    mend: str = ""

    @property
    def sound(self) -> bool:
        return not self.mend


def findings(lookup: bool = True) -> Iterator[Finding]:
    """The checks, one after another, the cheap ones first; those that a failed one makes pointless are left out.

    Args:
        lookup: look rows of a sharded table up too, which takes longer than all else.
    """
    yield _python()
    triple = list(_triple())
    yield from triple
    if not all(finding.sound for finding in triple):
        return
    imported = _run("imports", "import torch, fbgemm_gpu, torchrec; print('torch, fbgemm_gpu and torchrec load together')", REINSTALL)
    yield imported
    if not imported.sound:
        return
    yield _device()
    yield _run("gloo", "import torch.distributed as d; assert d.is_gloo_available(); print('available')", REINSTALL)
    if lookup:
        yield _run("sharded lookup", "from dmoe.doctor import sharded_lookup; sharded_lookup()", REINSTALL)
    yield _run("torchx", "import torchx.version as v, torchx.runner; print(v.__version__)", REINSTALL)


def _python() -> Finding:
    found = ".".join(str(part) for part in sys.version_info[:3])
    sound = sys.version_info >= (3, 11)
    return Finding("python", found, "" if sound else "make venv PYTHON=python3.11 (after rm -rf .venv)")


def _triple() -> Iterator[Finding]:
    found = {name: version_of(name) for name in ("torch", "torchrec", "fbgemm-gpu", "fbgemm-gpu-cpu")}
    for name in ("torch", "torchrec"):
        yield Finding(name, found[name] or "not installed", "" if found[name] else "make venv")
    kernels = [name for name in ("fbgemm-gpu", "fbgemm-gpu-cpu") if found[name]]
    if not kernels:
        yield Finding("fbgemm", "not installed", "make venv")
        return
    if len(kernels) == 2:
        yield Finding("fbgemm", "fbgemm-gpu and fbgemm-gpu-cpu are both installed, over each other", REINSTALL)
        return
    fbgemm = found[kernels[0]] or ""
    yield Finding("fbgemm", f"{kernels[0]} {fbgemm}")
    if found["torch"] and found["torchrec"]:
        yield _rule(found["torch"], found["torchrec"], fbgemm)


def _rule(torch: str, torchrec: str, fbgemm: str) -> Finding:
    """fbgemm 1.X and torchrec 1.X go with torch 2.(X+5)."""
    minor = [int(text.split("+")[0].split(".")[1]) for text in (torch, torchrec, fbgemm)]
    fits = minor[1] == minor[2] == minor[0] - 5
    told = f"torch {torch}, torchrec {torchrec}, fbgemm {fbgemm}"
    verdict = "fit" if fits else "do not fit (fbgemm and torchrec 1.X go with torch 2.(X+5))"
    return Finding("triple", f"{told} {verdict}", "" if fits else REINSTALL)


def _device() -> Finding:
    has_gpu = subprocess.run(["sh", "-c", "nvidia-smi -L"], capture_output=True, check=False).returncode == 0
    code = "import torch as t; print(t.version.cuda, t.cuda.is_available(), t.cuda.device_count(), t.distributed.is_nccl_available())"
    built, available, count, nccl = _python_output(code).split()
    if not has_gpu:
        return Finding("device", f"no GPU here; torch is a {'CPU' if built == 'None' else 'CUDA ' + built} build, ranks run on gloo")
    if available != "True" or version_of("fbgemm-gpu") is None:
        return Finding("device", "this machine has a GPU, but the CPU build is installed", "rm -rf .venv && make venv DEVICE=cuda")
    if nccl != "True":
        return Finding("device", f"{count} GPUs, but torch was built without NCCL", "rm -rf .venv && make venv DEVICE=cuda")
    return Finding("device", f"{count} GPU(s), CUDA {built}, NCCL available")


def _run(check: str, code: str, mend: str) -> Finding:
    try:
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return Finding(check, f"no answer within {SECONDS} s", mend)
    if done.returncode == 0:
        return Finding(check, done.stdout.strip().splitlines()[-1])
    last = (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
    return Finding(check, last, mend)


def _python_output(code: str) -> str:
    return subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=SECONDS, check=True).stdout


def sharded_lookup() -> None:
    """Two gloo processes share a table by rows and compare what they look up with what the table holds. Raises where they differ."""
    import tempfile

    import torch.multiprocessing as processes

    with tempfile.TemporaryDirectory() as folder:
        processes.spawn(_lookup, (f"{folder}/store",), nprocs=2)
    print("two gloo processes looked up rows of one table sharded over both")


def _lookup(rank: int, store: str) -> None:
    import os

    os.environ.update(LOCAL_WORLD_SIZE="2")
    import torch
    import torch.distributed as dist
    from torchrec.distributed import DistributedModelParallel
    from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

    from dmoe.config.config import Config
    from dmoe.data.dataset.manifest import CategoricalFeature
    from dmoe.model.embedding.embedding import MultiEmbedding
    from dmoe.model.embedding.tables import make_tables
    from dmoe.sharding.plan.initialize import initial_block, initialize_tables
    from dmoe.sharding.plan.job_plan import make_plan, sharders

    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    feature = CategoricalFeature(name="C1", kind="token", cardinality=10, missing_share=0.0, rare_share=0.0)
    tables = make_tables([feature], [8], "wide")
    model = MultiEmbedding(tables, torch.device("meta"))
    config = Config.model_validate({"sharding": {"types": ["row_wise"]}})
    device = torch.device("cpu")
    sharded = DistributedModelParallel(model, device=device, plan=make_plan(model, tables, config, device), sharders=sharders())
    initialize_tables(sharded, tables, seed=0, std=1.0)
    ids = KeyedJaggedTensor(keys=["C1"], values=torch.tensor([9 - rank, 0]), lengths=torch.ones(2, dtype=torch.int32), stride=2)
    (looked_up_BFK,) = sharded(ids)
    expected = initial_block(0, "C1/0", 0, 10, 8, 1.0)[[9 - rank, 0]]
    torch.testing.assert_close(looked_up_BFK[:, 0], expected)
    dist.barrier()
    dist.destroy_process_group()
