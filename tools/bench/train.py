"""A training step of dmoe beside what a user would pick instead: the same model on the same batches, interleaved, as ratios.

    python -m tools.bench.train --rows 10000,100000 --batch 4096 --output /tmp/bench/train

Contenders: dmoe; FuxiCTR's blocks; DeepCTR-Torch's; plain PyTorch with SparseAdam; the torchrec_dlrm recipe. All are alive together and
take turns, as many at a time as `--memory-gib` holds, dmoe always among them. A ratio is the median over rounds of a contender's time over
dmoe's: above 1, dmoe is faster. Weights of tables and of the dense part are counted and printed: a contender of another size is no
contender. FuxiCTR and DeepCTR-Torch are imported where installed, or put in an environment of their own by `--peers-venv FOLDER`.
"""

import argparse
import itertools
import statistics
import sys
from dataclasses import replace

from tools.bench.case import Case
from tools.bench.contest import MAIN, Contender, contest, ratio, spread
from tools.bench.peers import interpreter, missing
from tools.bench.results import Row, announce, draw, read, save

# Bytes a weight while training, of each: weights and Adagrad's sums; weights, dense gradients and Adam's two; weights and Adam's two.
COPIES = {"dmoe": 2, "fuxictr": 4, "deepctr": 4, "plain": 3, "dlrm": 2}
ONE_PROCESS_ONLY = {"fuxictr": "its trainer has no ranks", "deepctr": "its trainer has no ranks", "plain": "written for one process"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="dmoe,dcnv2")
    parser.add_argument("--contenders", default=",".join(COPIES))
    parser.add_argument("--rows", default="10000,100000,1000000", help="rows a feature")
    parser.add_argument("--batch", default="1024,4096,16384,65536", help="global batch sizes")
    parser.add_argument("--ranks", default="1,2")
    parser.add_argument("--threads", type=int, default=2, help="of all ranks together")
    parser.add_argument("--features", type=int, default=26, help="lowered, aloud, where the tables would not fit")
    parser.add_argument(
        "--memory-gib", type=float, default=8.0, help="of the tables alive together, and of a contender's ranks with its batch"
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=60.0, help="stop a point's rounds after so long")
    parser.add_argument("--timeout", type=float, default=120.0, help="a contender that takes longer for a turn is out")
    parser.add_argument("--peers-venv", default="", help="where FuxiCTR and DeepCTR-Torch are, or are to be put")
    parser.add_argument("--output", default="", help="writes OUTPUT.csv and OUTPUT.png")
    parser.add_argument("--append", action="store_true", help="keep what OUTPUT.csv has of other points")
    arguments = parser.parse_args()
    python = interpreter(arguments.peers_venv)
    names = arguments.contenders.split(",")
    for name, reason in missing(names, python).items():
        print(f"LEFT OUT: {name}: {reason}", flush=True)
        names.remove(name)
    axes = ([int(x) for x in arguments.rows.split(",")], [int(x) for x in arguments.batch.split(",")], arguments.ranks.split(","))
    announce()
    table = read(f"{arguments.output}.csv") if arguments.append and arguments.output else []
    for model, rows, batch, ranks in itertools.product(arguments.models.split(","), *axes):
        threads = max(1, arguments.threads // int(ranks))
        case = Case(model, rows, arguments.features, batch=batch, ranks=int(ranks), threads=threads)
        budget = arguments.memory_gib * 2**30
        pair = COPIES[MAIN] + max(COPIES[name] for name in names)
        if pair * case.weight_bytes > budget:
            per_feature = replace(case, features=1).weight_bytes * pair
            case = replace(case, features=max(1, int(budget // per_feature)))
            print(f"{rows:,} rows: {case.features} features instead of {arguments.features}, to stay in {arguments.memory_gib:g} GiB")
        for group in groups(names, case, budget):
            for name in [one for one in group if case.ranks > 1 and one in ONE_PROCESS_ONLY]:
                print(f"LEFT OUT at {ranks} ranks: {name}: {ONE_PROCESS_ONLY[name]}")
                group.remove(name)
            entries = [(name, case, python if name in ("fuxictr", "deepctr") else sys.executable) for name in group]
            found = contest(entries, arguments.rounds, arguments.seconds, arguments.timeout, arguments.memory_gib)
            for contender in found:
                row = row_of(contender, found[0])
                table = [old for old in table if old.place != row.place] + [row]
                print(row.line(), flush=True)
            if arguments.output:
                save(table, f"{arguments.output}.csv")
                draw(table, f"{arguments.output}.png")
    verdicts(table)


TARGETS = {10_000: 1.0, 100_000: 2.0, 1_000_000: 10.0}
"""Against FuxiCTR's blocks, a step of D-MoE, by rows a feature (issue 9)."""


def verdicts(table: list[Row]) -> None:
    for row in table:
        if row.model == "dmoe" and row.contender == "fuxictr" and row.rows in TARGETS and not row.error:
            target = TARGETS[row.rows]
            verdict = "reached" if row.ratio >= target else "NOT REACHED"
            print(
                f"D-MoE beside FuxiCTR, {row.rows:,} rows, batch {row.batch:,}: {row.ratio:.2f} times as fast, target {target:g}: {verdict}"
            )


def groups(names: list[str], case: Case, budget: float) -> list[list[str]]:
    """dmoe with as many others at a time as the memory holds."""
    made: list[list[str]] = [[MAIN]]
    for name in [one for one in names if one != MAIN]:
        if sum(COPIES[one] for one in [*made[-1], name]) * case.weight_bytes > budget and len(made[-1]) > 1:
            made.append([MAIN])
        made[-1].append(name)
    return made


def row_of(one: Contender, main_one: Contender) -> Row:
    case = one.case
    middle = statistics.median(one.rounds) if one.rounds else float("nan")
    return Row(
        model=case.model,
        rows=case.rows,
        features=case.features,
        batch=case.batch,
        ranks=case.ranks,
        threads=case.threads,
        contender=one.name,
        step_ms=middle * 1e3,
        spread=spread(one.rounds),
        cpu_ms=statistics.median(one.cpu_rounds) * 1e3 if one.cpu_rounds else float("nan"),
        samples_per_second=case.batch / middle,
        peak_mib=one.peak_mib,
        ratio=ratio(one.rounds, main_one.rounds),
        cpu_ratio=ratio(one.cpu_rounds, main_one.cpu_rounds),
        rounds=len(one.rounds),
        load=statistics.median(one.loads) if one.loads else float("nan"),
        table_parameters=one.table_parameters,
        dense_parameters=one.dense_parameters,
        error=one.error,
    )


if __name__ == "__main__":
    main()
