"""Costs and gains of the variants of a ladder: a table and plots."""

from collections.abc import Mapping

from dmoe.model.budget.cost import Cost
from dmoe.model.budget.sizes import human
from dmoe.report.document import Block, Chart, Note, Series, Table
from dmoe.report.ladder.results import Ladder
from dmoe.report.ladder.verdicts import plain, signed
from dmoe.report.latency import BATCHES, FASTEST, Latency


def cost_table(ladder: Ladder, costs: dict[str, Cost], served: Mapping[str, Latency]) -> list[Block]:
    """A table of the gain over the first rung, parameters, FLOPs, bytes, training speed and, if it was measured, scoring speed."""
    first = ladder.results.get(ladder.spec.rungs[0])
    head = ["variant", "AUC gained", "embedding params", "dense params", "MFLOP/row", "tables", "scorer, int8 rows", "training samples/s"]
    head += ["1 row, ms", "256 rows, ms", "scored rows/s"] if served else []
    rows = []
    for name, one in ladder.results.items():
        cost, latency = costs.get(name), served.get(name)
        cells = [one.label, signed(one.mean("auc") - first.mean("auc")) if first else "-"]
        if cost:
            cells += [f"{cost.embedding_parameters:,}", f"{cost.dense_parameters:,}", f"{cost.total_flops / 1e6:.2f}"]
            cells += [human(cost.embedding_bytes), human(cost.scorer_bytes("int8"))]
        else:
            cells += ["-"] * 5
        cells.append(plain(one.mean("samples_per_second"), 0))
        if latency:
            cells += [
                plain(latency.milliseconds(1, FASTEST), 2),
                plain(latency.milliseconds(256, FASTEST), 1),
                plain(latency.rows_a_second(FASTEST), 0),
            ]
        rows.append([*cells, *["-"] * (len(head) - len(cells))])
    words = "Gained: mean over seeds, against the first rung. FLOPs are of a row's forward pass. Training was measured beside other runs."
    if served:
        words += (
            " Scoring: the fastest call of the first seed's run, exported with fp32 rows, one thread, all scorers in turns on this machine;"
            f" rows/s at {max(BATCHES):,} rows a call; an ensemble's members one after another."
        )
    return [Table(head, rows), Note(words, "faint")]


def cost_plots(ladder: Ladder, costs: dict[str, Cost], served: Mapping[str, Latency]) -> list[Chart]:
    """Plots of the gain against parameters, FLOPs and scoring time."""
    first = ladder.results.get(ladder.spec.rungs[0])
    if not first:
        return []
    prices = {
        "embedding parameters": {name: float(cost.embedding_parameters) for name, cost in costs.items()},
        "FLOPs a row": {name: float(cost.total_flops) for name, cost in costs.items()},
        "microseconds a scored row": {name: 1e6 / latency.rows_a_second(FASTEST) for name, latency in served.items()},
    }
    drawn = []
    for title, priced in prices.items():
        known = [(one, priced[name]) for name, one in ladder.results.items() if name in priced]
        groups = [Series(one.label, [price], [one.mean("auc") - first.mean("auc")]) for one, price in known]
        drawn.append(Chart(f"Gain over {first.label} against {title}", title, "AUC gained", groups, log_x=True, cloud=True))
    return drawn
