"""Joins exposures with clicks: which rows were clicked within a time window.

Shapes: N exposures, C clicks, U units.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dmoe.errors import UserError, shown
from dmoe.report.ab.load import Test

DAY = 86_400_000_000


@dataclass(frozen=True)
class Joined:
    """Exposures with their outcomes.

    Attributes:
        unit_N: index of the unit.
        arm_N: index of the arm, in the order of the test.
        time_N: microseconds since 1970.
        score_N: probability that was answered.
        shadow_N: probability from the shadow; NaN without one.
        clicked_N: bool.
        arm_U: index of the arm of each unit.
        versions: for each arm, the versions that answered.
        counts: numbers of exposures and clicks that were used or left out, by reason.
        end: microseconds since 1970 up to which outcomes are known.
    """

    unit_N: np.ndarray
    arm_N: np.ndarray
    time_N: np.ndarray
    score_N: np.ndarray
    shadow_N: np.ndarray
    clicked_N: np.ndarray
    arm_U: np.ndarray
    versions: dict[str, list[str]]
    counts: dict[str, int]
    end: int


def join_outcomes(
    exposures: pa.Table, test: Test, clicks: pa.Table, window: float, since: int | None = None, until: int | None = None
) -> Joined:
    """Finds the clicked exposures.

    Args:
        exposures: ordered by time.
        window: seconds after an exposure in which a click counts. Exposures whose window is not over at the end are left out.
        since, until: microseconds since 1970. Exposures outside of this time, and clicks after `until`, are left out.

    Raises:
        UserError: a unit is in two arms, the test lacks an arm, requests have several rows but clicks have no row, or no exposure is left.
    """
    counts = {"exposures": len(exposures)}
    unit_codes = exposures["unit"].combine_chunks().dictionary_encode()
    unit_N = unit_codes.indices.to_numpy().astype(np.int64)
    time_N = exposures["time"].combine_chunks().cast(pa.int64()).to_numpy()
    # Another period may have other arms, and other units in them. It is not read.
    asked_N = (time_N >= (time_N.min() if since is None else since)) & (time_N <= (time_N.max() if until is None else until))
    arm_of = pc.index_in(exposures["arm"], value_set=pa.array(list(test.arms)))
    arm_N = pc.fill_null(arm_of, -1).combine_chunks().to_numpy().astype(np.int64)
    if (strange := np.flatnonzero(asked_N & (arm_N < 0))).size:
        arm = exposures["arm"][int(strange[0])].as_py()
        raise UserError(f"exposures: arm {shown(arm)} is none of the test's, which are {', '.join(test.arms)}")
    arm_U = _one_arm_each(unit_N[asked_N], arm_N[asked_N], unit_codes.dictionary, list(test.arms))
    row_N = exposures["row"].combine_chunks().to_numpy().astype(np.int64)
    request_codes = exposures["request_id"].combine_chunks().dictionary_encode()
    request_N = request_codes.indices.to_numpy().astype(np.int64)
    row_key = int(row_N.max(initial=0)) + 1
    # Of several exposures with the same request and row, the first in time counts.
    key_N = request_N * row_key + row_N
    _, first = np.unique(key_N, return_index=True)
    keep_N = np.zeros(len(key_N), bool)
    keep_N[first] = True
    counts["repeated exposures"] = int((~keep_N).sum())

    counts["clicks"] = len(clicks)
    timed = "time" in clicks.column_names
    click_time_C = clicks["time"].combine_chunks().cast(pa.int64()).to_numpy() if timed else np.zeros(len(clicks), np.int64)
    # Outcomes are known up to the last click. If clicks have no time, all outcomes are known.
    end = until if until is not None else int(click_time_C.max() if timed and len(clicks) else time_N.max())
    kept = np.flatnonzero(keep_N)
    if "request_id" in clicks.column_names:
        found_C = _by_request(clicks, request_codes.dictionary, key_N[kept], row_key)
    else:
        if row_key > 1:
            raise UserError("clicks with unit and time do not say which row of a request they are of: give request_id and row")
        found_C = _by_unit(clicks, unit_codes.dictionary, unit_N[kept], time_N[kept], click_time_C)
    found_C = np.where(found_C >= 0, kept[found_C], -1)
    counts["unmatched clicks"] = int((found_C < 0).sum())
    delay_C = click_time_C - time_N[found_C]
    matched_C = found_C >= 0
    late_C = matched_C & timed & (delay_C > window * 1e6)
    early_C = matched_C & timed & (delay_C < 0)
    beyond_C = matched_C & ~late_C & ~early_C & timed & (click_time_C > end)
    counts |= {
        "late clicks": int(late_C.sum()),
        "clicks before their exposure": int(early_C.sum()),
        "clicks after the end": int(beyond_C.sum()),
    }
    clicked = found_C[matched_C & ~late_C & ~early_C & ~beyond_C]
    clicked_N = np.zeros(len(time_N), bool)
    clicked_N[clicked] = True
    counts["repeated clicks"] = len(clicked) - int(clicked_N.sum())

    open_N = keep_N & (time_N > (end - window * 1e6 if timed else end))
    outside_N = keep_N & ~open_N & (time_N < (since if since is not None else time_N.min()))
    counts |= {"exposures with an open window": int(open_N.sum()), "exposures outside of the time": int(outside_N.sum())}
    keep_N &= ~open_N & ~outside_N
    counts |= {"rows": int(keep_N.sum()), "clicked rows": int(clicked_N[keep_N].sum())}
    if not counts["rows"]:
        raise UserError(
            f"no exposure is left of {len(exposures):,}: {counts['exposures with an open window']:,} have a window that is still open,"
            f" {counts['exposures outside of the time']:,} are outside of the time; give a shorter --window, or --until"
        )
    shadow_N = exposures["shadow_score"].combine_chunks().to_numpy(zero_copy_only=False)
    score_N = exposures["score"].combine_chunks().to_numpy()
    return Joined(
        unit_N[keep_N],
        arm_N[keep_N],
        time_N[keep_N],
        score_N[keep_N].astype(np.float64),
        shadow_N[keep_N].astype(np.float64),
        clicked_N[keep_N],
        arm_U,
        _versions(exposures.filter(pa.array(keep_N)), list(test.arms)),
        counts,
        end,
    )


def _one_arm_each(unit_N: np.ndarray, arm_N: np.ndarray, names: pa.Array, arms: list[str]) -> np.ndarray:
    arm_U = np.zeros(len(names), np.int64)
    arm_U[unit_N] = arm_N
    if (wrong := np.flatnonzero(arm_U[unit_N] != arm_N)).size:
        first, units = wrong[0], len(np.unique(unit_N[wrong]))
        both = sorted({arms[arm_N[first]], arms[arm_U[unit_N[first]]]})
        raise UserError(
            f"exposures: {units:,} units are in two arms, such as {shown(names[int(unit_N[first])].as_py())} in {' and '.join(both)}:"
            " the shares or the arms were changed so that units moved (dmoe ab assign --before tells);"
            " read one period with --since and --until"
        )
    return arm_U


def _by_request(clicks: pa.Table, requests: pa.Array, key_K: np.ndarray, row_key: int) -> np.ndarray:
    """The index in `key_K` of the row of each click, [C]; -1 if there is none."""
    if row_key > 1 and "row" not in clicks.column_names:
        raise UserError("--clicks: no column 'row', and requests have several rows: say which of them was clicked, from 0")
    request_C = pc.fill_null(pc.index_in(clicks["request_id"], value_set=requests), -1).combine_chunks().to_numpy().astype(np.int64)
    row_C = np.zeros(len(clicks), np.int64)
    if "row" in clicks.column_names:
        row_C = pc.fill_null(clicks["row"], -1).combine_chunks().to_numpy().astype(np.int64)
    key_C = np.where((request_C >= 0) & (row_C >= 0) & (row_C < row_key), request_C * row_key + row_C, -1)
    order = np.argsort(key_K)
    place = np.minimum(np.searchsorted(key_K[order], key_C), len(key_K) - 1)
    return np.where(key_K[order][place] == key_C, order[place], -1)


def _by_unit(clicks: pa.Table, units: pa.Array, unit_K: np.ndarray, time_K: np.ndarray, click_time_C: np.ndarray) -> np.ndarray:
    """The index of the last exposure of the same unit at or before each click, [C]; -1 if there is none."""
    unit_C = pc.fill_null(pc.index_in(clicks["unit"], value_set=units), -1).combine_chunks().to_numpy().astype(np.int64)
    unit, time = np.concatenate([unit_K, unit_C]), np.concatenate([time_K, click_time_C])
    is_click = np.arange(len(unit)) >= len(unit_K)
    order = np.lexsort((is_click, time, unit))
    place = np.where(is_click[order], -1, np.arange(len(order)))
    last = order[np.maximum.accumulate(np.maximum(place, 0))]
    same = ~is_click[last] & (unit[last] == unit[order])
    found = np.empty(len(order), np.int64)
    found[order] = np.where(same, last, -1)
    return found[len(unit_K) :]


def _versions(table: pa.Table, arms: list[str]) -> dict[str, list[str]]:
    pairs = table.group_by(["arm", "version"]).aggregate([]).to_pylist()
    return {arm: sorted(pair["version"] for pair in pairs if pair["arm"] == arm) for arm in arms}
