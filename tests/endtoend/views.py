"""A view of every kind whose users' texts are hostile, for tests of their pages."""

from pathlib import Path

from dmoe.accept.finding import HELD, Figure, Finding
from dmoe.accept.report import as_page
from dmoe.data.dataset.describe import Description, FeatureFacts, SplitFacts
from dmoe.data.dataset.describe_view import describe_document
from dmoe.online.status import status_document
from dmoe.report.ab.compare import Comparison, Look
from dmoe.report.ab.page import ab_document
from dmoe.report.ab.read import ArmFigures, Reading
from dmoe.report.compare import compare_document, compare_runs
from dmoe.report.expert_slices import experts_document, experts_of_run, slice_table
from dmoe.report.ladder.frontier import frontier_document
from dmoe.report.ladder.page import ladder_document
from dmoe.report.ladder.results import answer
from dmoe.report.run_page import run_document
from dmoe.report.runs import load_run
from dmoe.sharding.plan.check import Finding as Limit
from dmoe.sharding.plan.check import check_document
from dmoe.sharding.planner.advice.sweep_page import sweep_document
from tests.unit.report.test_frontier import costs, served
from tests.unit.report.test_words import ladder
from tests.unit.sharding.test_sweep import at

EVIL = "<script>alert(1)</script>'&\"ñ"


def pages(folder: Path, run: Path) -> dict[str, str]:
    """HTML by name.

    Args:
        run: a finished run with its experts' predictions.
    """
    found = load_run(str(run))
    steps = [{"step": step, "loss": 0.7 - 0.001 * step, "auc": 0.6 + 0.001 * step, "cec": 0.3} for step in range(1, 200)]
    other = Path(str(run) + "-b")
    other.mkdir()
    for file in run.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    runs = [found, load_run(str(other))]
    for number, one in enumerate(runs):
        one.history.update(train=steps[:: number + 1], validation=steps[::20])
        object.__setattr__(one, "config", one.config.model_copy(update={"variant": f"{EVIL} {number}"}))
    made = ladder({"a": 1.0, "bb": 1.3, "ccc": 1.7}, {"a": 0.3, "bb": 0.2, "ccc": 0.1})
    for one in made.results.values():
        one.label = f"{EVIL} {one.name}"
        object.__setattr__(made.spec.variants[one.name], "label", one.label)
    prices, latency = costs(a=100, bb=300, ccc=150), served(a=0.001, bb=0.002)
    experts = experts_of_run(str(run), ["tags"], 2, [], 2)
    object.__setattr__(experts, "run", found)
    compared = compare_runs(str(run), str(other), ["tags"], 8, 0.1)
    object.__setattr__(compared, "a", runs[0])
    return {
        "runs": run_document(runs, EVIL, [slice_table(experts)]).html(),
        "experts": experts_document(experts).html(),
        "compare": compare_document(compared).html(),
        "ladder": ladder_document(made, answer(made), prices, [EVIL], latency).html(),
        "frontier": frontier_document(made, prices, [EVIL], latency).html(),
        "describe": describe_document(_data_set()).html(),
        "ab": ab_document(_test()).html(),
        "online": status_document(_online()).html(),
        "sweep": sweep_document([at(1, 100), at(2, 180), at(4, 300), at(8, 310)], EVIL).html(),
        "check": check_document([Limit("headroom", "10%", "5%", tuple((rank, f"{rank}%") for rank in range(9)), EVIL)], EVIL).html(),
        "accept": as_page([Finding(f"stage {n}", HELD, EVIL, "", (Figure(EVIL, n),), n, 60) for n in range(9)], {"what": EVIL}, True),
    }


def _data_set() -> Description:
    top = [(1, 0.1), (10, 0.3), (100, 0.6), (1000, 0.95)]
    features = [FeatureFacts(f"{EVIL} {n}", "token", 10 ** (n % 7) + n, 0.01 * n, 0.02, top, 90.0 + n) for n in range(26)]
    split = SplitFacts("train", 1000, 250, 4, 8, 10**6, [0.2, 0.3, 0.25, 0.25], True)
    days = [(f"day_{n}", 1000 + n, 250 + 10 * n) for n in range(9)]
    return Description(EVIL, "criteo", [split], [(EVIL, "log1p", 0.1)], features, days, "the counts", EVIL, [EVIL])


def _test() -> Reading:
    arms = [
        ArmFigures(arm, 0.5, 900 + len(arm), 9000, 900, 0.1, 0.01, 0.3, 0.01, 0.1, 0.7, 0.01, 1.0, 0.02, 1.2, 0.1, 10.0, 1.0, ["1"], bins)
        for arm, bins in (("control", [(0.1, 0.1), (0.2, 0.21)]), (EVIL, [(0.1, 0.12), (0.25, 0.24)]))
    ]
    looks = [Look(20_788 + n, 0.01, 0.01 - 0.02 / (n + 1), 0.01 + 0.02 / (n + 1), 0.5) for n in range(6)]
    days = [(20_788 + n, 0.01 + 0.001 * n, 0.005) for n in range(6)]
    figures = (0.95, 0.1, 0.11, 0.01, 0.005, 0.015, 0.1, 0.05, 0.15, 0.004, 0.003, 0.01, 0.01, True, 3)
    counts = dict.fromkeys(("exposures", "clicks", "rows", "clicked rows", "unmatched clicks"), 9)
    return Reading(
        EVIL, 20_788, 20_793, 3600.0, counts, arms, "clicks", [Comparison(EVIL, "clicks", *figures, looks, days, None)], 0.5, 0.5, None
    )


def _online() -> dict:
    test = {"auc": 0.7, "logloss": 0.5, "ne": 0.9, "calibration": 1.01, "cec": 0.2, "gate_mass": [0.4, 0.6]}
    windows = [
        {"window": n, "state": "quarantined" if n == 5 else "trained", "rows": 100 * n, "test": test | {"auc": 0.7 + 0.001 * n}}
        | {"files": [{"name": f"logs/{EVIL}"}], "notes": [EVIL] if n == 3 else []}
        for n in range(12)
    ]
    return {"run": EVIL, "windows": windows, "versions": []}
