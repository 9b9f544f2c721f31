"""Why a model does not fit a cluster, and the smallest change of each kind that makes it fit. Each change is tested by making a plan."""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from dmoe.config.config import Config
from dmoe.data.dataset.manifest import Manifest
from dmoe.errors import UserError
from dmoe.model.budget.sizes import human
from dmoe.report.document import Document, Note, Table
from dmoe.sharding.plan.shard_layout import MAX_ROWS
from dmoe.sharding.plan.sharders import allowed_types
from dmoe.sharding.planner.advice.remedies import EFFECTS, IN_HOST, Attempt, Lever, levers_for, paired
from dmoe.sharding.planner.advice.sweep import changed
from dmoe.sharding.planner.cluster import Cluster
from dmoe.sharding.planner.cost.step_time import ASSUMED, Step, memory_of, shortage, step_of, table_bytes
from dmoe.sharding.planner.planning_model import Described, describe
from dmoe.sharding.planner.room import DoesNotFit
from dmoe.sharding.planner.search.search import GAP

MANY, ROUNDED_TO, ROUGH_GAP = 200, 0.01, 10.0
"""If the features have more than MANY different cardinalities, the plans for a change are made with rows rounded up to steps of 1 %, so
that tables share candidates; such a plan also fits the real tables. The search stops at the first plan, which need not be the best."""
NOT_OFFERED = "fp16 rows: tables train in float32 here, only an exported scorer can have fp16 or int8 ones"


@dataclass(frozen=True)
class Change:
    """The smallest amount of a lever that gave a plan, and the step that this plan predicts."""

    kind: str
    what: str
    how: str
    effect: int
    caveat: str
    step: Step
    plans: int

    @property
    def order(self) -> tuple[int, float]:
        """Sort key: changes that keep the model unchanged first, then by cost (step time x ranks if the cluster has no price)."""
        return self.effect, self.step.usd_a_billion if self.step.usd_an_hour else self.step.ms * self.step.ranks


@dataclass(frozen=True)
class Explanation:
    """Whether a model fits a cluster, and the changes that help if it does not.

    Attributes:
        step: predicted step of the plan; None if the model does not fit.
        needs: bytes of the weights and optimizer state of all tables, which any plan must place.
        tables: (name, rows, columns, bytes), the largest first.
        changes: changes that make the model fit, best first; searched only if it does not fit.
        no_help: (lever, its largest amount) of the levers that are not sufficient alone.
    """

    cluster: Cluster
    on_device: bool
    step: Step | None
    needs: int
    memory: float
    shortage: str
    tables: tuple[tuple[str, int, int, int], ...]
    changes: tuple[Change, ...]
    no_help: tuple[tuple[str, str], ...]

    def as_json(self) -> dict[str, Any]:
        changes = [asdict(one) | {"effect": EFFECTS[one.effect], "step": one.step.as_json()} for one in self.changes]
        return {
            "cluster": self.cluster.name,
            "fits": self.step is not None,
            "on_device_only": self.on_device,
            "step": self.step and self.step.as_json(),
            "tables_bytes": self.needs,
            "cluster_bytes": self.memory,
            "tables": [dict(zip(("name", "rows", "columns", "bytes"), row, strict=True)) for row in self.tables],
            "changes": changes,
            "no_help": [{"kind": kind, "up_to": what} for kind, what in self.no_help],
            "not_offered": [NOT_OFFERED],
        }


def explain(model: Described, cluster: Cluster, on_device: bool = False, told: Callable[[str], None] = lambda text: None) -> Explanation:
    """Makes the plan; if none fits, finds the smallest sufficient amount of each lever.

    Args:
        on_device: a plan with tables in host memory, the planner's fallback if the config names no types, counts as a failure.
        told: progress callback; called with a description of each attempt.

    Raises:
        UserError: a constraint is impossible for a reason other than memory.
    """
    step, missing = None, ""
    try:
        step = _plan(model, cluster, on_device)
    except DoesNotFit as error:
        # Room 0 means that the cause is not the size of the tables: keep the message.
        missing = shortage(model, cluster, on_device) if error.room else str(error).removeprefix("sharding: ")
    sizes = table_bytes(model)
    rows = sorted(((t.name, t.rows, t.columns, sizes[t.name]) for t in model.tables), key=lambda row: (-row[3], row[0]))
    changes: list[Change] = []
    no_help: list[tuple[str, str]] = []

    def try_all(levers: list[Lever]) -> None:
        for lever in levers:
            told(lever.kind)
            change = _smallest(lever, model, cluster, on_device and lever.kind != IN_HOST, on_device)
            if change is None:
                no_help.append((lever.kind, lever.attempts[-1].what))
            else:
                changes.append(change)

    if step is None:
        levers = levers_for(model, cluster, on_device)
        try_all(levers)
        try_all(paired(levers, {one.kind: one.what for one in changes}))
    return Explanation(
        cluster,
        on_device,
        step,
        sum(sizes.values()),
        memory_of(cluster, on_device),
        missing,
        tuple(rows),
        tuple(sorted(changes, key=lambda one: one.order)),
        tuple(no_help),
    )


def _smallest(lever: Lever, model: Described, cluster: Cluster, device_alone: bool, on_device: bool) -> Change | None:
    """The smallest amount that fits: exponential search, then bisection between the last failure and the first success."""
    plans = 0

    def fits(index: int) -> Step | None:
        nonlocal plans
        attempt = lever.attempts[index]
        target = attempt.cluster or cluster
        try:
            changed_model = _apply(attempt, model)
            # Skip the planner if the tables need more than all memory.
            if sum(table_bytes(changed_model).values()) > memory_of(target, device_alone):
                return None
            plans += 1
            rounded = _rounded(changed_model)
            return _plan(rounded, target, on_device, GAP if rounded is changed_model else ROUGH_GAP)
        except UserError:
            return None

    last = len(lever.attempts) - 1
    low, high = -1, 0
    while (step := fits(high)) is None:
        if high == last:
            return None
        low, high = high, min(2 * high + 1, last)
    while high - low > 1:
        middle = (low + high) // 2
        if (found := fits(middle)) is None:
            low = middle
        else:
            high, step = middle, found
    chosen = lever.attempts[high]
    return Change(lever.kind, chosen.what, chosen.how, lever.effect, lever.caveat, step, plans)


def _apply(attempt: Attempt, model: Described) -> Described:
    config: Config = changed(model.config, attempt.overrides)
    manifest: Manifest = model.manifest
    if attempt.cap is not None:
        capped = [one.model_copy(update={"cardinality": min(one.cardinality, attempt.cap)}) for one in manifest.categorical]
        manifest = manifest.model_copy(update={"categorical": tuple(capped)})
    return model if config is model.config and manifest is model.manifest else describe(config, manifest)


def _rounded(model: Described) -> Described:
    """The model with rows rounded up if it has many different tables."""
    cardinalities = {one.cardinality for one in model.manifest.categorical}
    if len(cardinalities) <= MANY:
        return model
    steps = {rows: math.ceil(math.log(rows) / math.log1p(ROUNDED_TO) - 1e-9) for rows in cardinalities}
    rounded = {rows: min(max(rows, math.ceil((1 + ROUNDED_TO) ** many)), MAX_ROWS) for rows, many in steps.items()}
    features = tuple(one.model_copy(update={"cardinality": rounded[one.cardinality]}) for one in model.manifest.categorical)
    return describe(model.config, model.manifest.model_copy(update={"categorical": features}))


def _plan(model: Described, cluster: Cluster, on_device: bool, gap: float = GAP) -> Step:
    config = model.config
    if on_device and cluster.device.kind == "cuda" and not config.sharding.types:
        # If the config names sharding types, the planner does not use host memory by itself.
        types = f"sharding.types=[{','.join(allowed_types(config, cluster.ranks))}]"
        model = describe(changed(config, [types]), model.manifest)
    return step_of(model, model.plan(cluster, explain=False, gap=gap), cluster)


def failure_document(found: Explanation, top: int = 5) -> Document:
    """What `dmoe plan explain-failure` prints, with so many of the largest tables."""
    where, step = " without tables in the host's memory" if found.on_device else "", found.step
    told, changes = [f"No plan fits {found.cluster.name}{where}: {found.shortage}"], "\n".join(_change_lines(found))
    if step is not None:
        host = f", {human(step.host_memory)} in its host's" if step.host_memory else ""
        told = [
            f"It fits {found.cluster.name}{where}: the fullest rank holds {human(step.memory)} of tables{host}, {step.headroom:.0%} of the"
            f" room ({human(step.room)}) is left; {step.ms:.2f} ms a step predicted ({step.tables_ms:.2f} of it for the tables)"
        ]
        slow = "Some tables lie in the host's memory, which is slow; --on-device says what would keep them out of it"
        told, changes = [*told, *[slow] * bool(step.host_memory)], ""
    rows = [[name, f"{rows:,} x {columns}", human(size), f"{size / found.needs:.1%}"] for name, rows, columns, size in found.tables[:top]]
    if others := found.tables[top:]:
        rest = sum(row[3] for row in others)
        rows.append([f"{len(others)} others", "", human(rest), f"{rest / found.needs:.1%}"])
    table = Table(["largest tables", "rows x columns", "with state", "share"], rows, rule=False)
    return Document("Why a plan does not fit", [*map(Note, told), table, Note(changes, "code"), Note(ASSUMED if changes else "")])


def _change_lines(found: Explanation) -> Iterator[str]:
    if not found.changes:
        yield "No single change makes it fit; lay one of the ones below over the config by --set, and ask again"
    else:
        yield "The smallest change of each kind that makes it fit, what leaves the model as it is first, then by money:"
        yield f"{'':>3} {'step ms':>9} {'memory':>7} {'host':>7} {'USD/1e9':>8}"
    effect = None
    for number, one in enumerate(found.changes, start=1):
        if one.effect != effect:
            effect = one.effect
            yield f"  {EFFECTS[effect]}"
        step = one.step
        host = f"{step.host_memory / 1e9:.0f} GB" if step.host_memory else "-"
        yield f"{number:>3} {step.ms:>9.2f} {1 - step.headroom:>7.0%} {host:>7} {step.usd_a_billion:>8,.2f}  {one.kind}: {one.what}"
        yield f"{'':>40}quality: {one.caveat}"
        yield f"{'':>40}{one.how}"
    if any(one.step.host_memory for one in found.changes) and not found.on_device:
        yield "  Steps are slow where tables lie in the hosts' memory; --on-device ranks what keeps them out of it"
    if found.no_help:
        yield ""
        for kind, what in found.no_help:
            yield f"  no help by itself: {kind} (up to {what})"
    yield f"  not offered: {NOT_OFFERED}"
