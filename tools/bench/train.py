"""A training step of dmoe beside what a user would pick instead: the same model on the same batches, interleaved, as ratios.

    python -m tools.bench.train --rows 10000,100000 --batch 4096

Contenders: dmoe; FuxiCTR's blocks; plain PyTorch with SparseAdam; the torchrec_dlrm recipe. All are alive together and take turns, as many
at a time as `--memory-gib` holds, dmoe always among them. A ratio is the median over rounds of a contender's time over dmoe's: above 1,
dmoe is faster. Weights of tables and of the dense part are counted and printed: a contender of another size is no contender. FuxiCTR is
imported where it is installed, or put in an environment of its own by `--peers-venv FOLDER`.
"""

import itertools
import statistics
import subprocess
import sys
import sysconfig
from dataclasses import replace
from pathlib import Path

from tools.bench.case import Case
from tools.bench.contest import MAIN, Contender, contest
from tools.bench.results import announce, parser, ratio, spread, verdict

# Bytes a weight while training, of each: weights and Adagrad's sums; weights, dense gradients and Adam's two; weights and Adam's two.
COPIES = {"dmoe": 2, "fuxictr": 4, "plain": 3, "dlrm": 2}
ONE_PROCESS_ONLY = {"fuxictr": "its trainer has no ranks", "plain": "written for one process"}
TARGETS = {10_000: 1.0, 100_000: 2.0, 1_000_000: 10.0}
"""Against FuxiCTR's blocks, a step of D-MoE, by rows a feature."""
# FuxiCTR imports ray wherever its layers are imported. It comes without its requirements, which would bring another PyTorch; these are
# the rest of them.
REQUIREMENTS = ["ray[data]>=2.52", "pandas", "scikit-learn", "h5py", "tqdm", "polars"]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--models", default="dmoe,dcnv2")
    options.add_argument("--contenders", default=",".join(COPIES))
    options.add_argument("--rows", default="10000,100000,1000000", help="rows a feature")
    options.add_argument("--batch", default="1024,4096,16384,65536", help="global batch sizes")
    options.add_argument("--ranks", default="1,2")
    options.add_argument("--threads", type=int, default=2, help="of all ranks together")
    options.add_argument("--features", type=int, default=26, help="lowered, aloud, where the tables would not fit")
    options.add_argument("--memory-gib", type=float, default=8.0, help="of the tables alive together, and of a contender with its batch")
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument("--seconds", type=float, default=60.0, help="stop a point's rounds after so long")
    options.add_argument("--timeout", type=float, default=120.0, help="a contender that takes longer for a turn is out")
    options.add_argument("--peers-venv", default="", help="where FuxiCTR is, or is to be put")
    arguments = options.parse_args()
    python, names = interpreter(arguments.peers_venv), arguments.contenders.split(",")
    if "fuxictr" in names:
        tried = subprocess.run([python, "-c", "import fuxictr.pytorch.layers"], capture_output=True, text=True)
        if tried.returncode:
            why = (tried.stderr.strip().splitlines() or ["cannot be imported"])[-1]
            print(f"LEFT OUT: fuxictr: {why}; see --peers-venv", flush=True)
            names.remove("fuxictr")
    announce()
    axes = ([int(one) for one in words.split(",")] for words in (arguments.rows, arguments.batch, arguments.ranks))
    verdicts = []
    for model, rows, batch, ranks in itertools.product(arguments.models.split(","), *axes):
        case = Case(model, rows, arguments.features, batch=batch, ranks=ranks, threads=max(1, arguments.threads // ranks))
        budget = arguments.memory_gib * 2**30
        pair = COPIES[MAIN] + max(COPIES[name] for name in names)
        if pair * case.weight_bytes > budget:
            case = replace(case, features=max(1, int(budget // (replace(case, features=1).weight_bytes * pair))))
            print(f"{rows:,} rows: {case.features} features instead of {arguments.features}, to stay in {arguments.memory_gib:g} GiB")
        for group in groups(names, case, budget):
            for name in [one for one in group if ranks > 1 and one in ONE_PROCESS_ONLY]:
                print(f"LEFT OUT at {ranks} ranks: {name}: {ONE_PROCESS_ONLY[name]}")
                group.remove(name)
            entries = [(name, case, python if name == "fuxictr" else sys.executable) for name in group]
            found = contest(entries, arguments.rounds, arguments.seconds, arguments.timeout, arguments.memory_gib)
            for one in found:
                print(line(one, found[0]), flush=True)
                if model == "dmoe" and one.name == "fuxictr" and rows in TARGETS and not one.error:
                    faster, target = ratio(one.rounds, found[0].rounds), TARGETS[rows]
                    told = f"{rows:,} rows, batch {batch:,}: {faster:.2f} times as fast, target {target:g}: {verdict(faster >= target)}"
                    verdicts.append(f"D-MoE beside FuxiCTR, {told}")
    print(*verdicts, sep="\n")


def groups(names: list[str], case: Case, budget: float) -> list[list[str]]:
    """dmoe with as many others at a time as the memory holds."""
    made: list[list[str]] = [[MAIN]]
    for name in [one for one in names if one != MAIN]:
        if sum(COPIES[one] for one in [*made[-1], name]) * case.weight_bytes > budget and len(made[-1]) > 1:
            made.append([MAIN])
        made[-1].append(name)
    return made


def line(one: Contender, main_one: Contender) -> str:
    """A contender at a point; `cpu` is of all ranks and threads."""
    case = one.case
    point = f"{case.model:5} rows {case.rows:>9,} x {case.features:2} batch {case.batch:>6,} ranks {case.ranks}x{case.threads} {one.name:8}"
    if one.error:
        return f"{point} FAILED: {one.error}"
    step, cpu = statistics.median(one.rounds), statistics.median(one.cpu_rounds)
    speed = f"{step * 1e3:9.1f} ms +-{spread(one.rounds):4.0%} {case.batch / step:9,.0f}/s cpu {cpu * 1e3:8.1f} ms"
    ratios = f"ratio {ratio(one.rounds, main_one.rounds):5.2f} (cpu {ratio(one.cpu_rounds, main_one.cpu_rounds):5.2f})"
    sizes = f"weights {one.table_parameters / 1e6:7.2f} M + {one.dense_parameters:,}"
    load = statistics.median(one.loads)
    return f"{point} {speed} peak {one.peak_mib:6,.0f} MiB {ratios} n={len(one.rounds)} load {load:4.1f} {sizes}"


def interpreter(folder: str) -> str:
    """This Python, or that of `folder`, an environment that sees this one's PyTorch, made with FuxiCTR where it is not there."""
    if not folder:
        return sys.executable
    python = Path(folder) / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        (site,) = Path(folder).glob("lib/python*/site-packages")
        (site / "dmoe.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", "fuxictr"], check=False)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=False)
    return str(python)


if __name__ == "__main__":
    main()
