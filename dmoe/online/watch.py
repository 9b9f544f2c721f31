"""Alarms about a window and the model trained on it: each figure is compared with those of earlier good windows. It needs no torch.

A figure raises an alarm if its distance from the median of earlier windows is more than a tolerance (`WatchConfig`) plus some standard
errors. The standard error combines the spread of earlier windows (from the median absolute deviation) and the sampling error for the number
of rows. Gate and correlation drift during training, so they are compared with the previous window, relative to their usual changes.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from dmoe.config.online_settings import WatchConfig
from dmoe.data.dataset.manifest import Manifest

Line = Mapping[str, Any]
SCALED_MAD = 1.4826
"""Standard deviation / median absolute deviation, for a normal distribution."""
CONSTANT = 0.01
"""A numeric feature raises an alarm if its deviation is below this share of its usual deviation."""


PARTS_OF_TIME = frozenset({"hour", "weekday", "is_weekend"})


def made_of_time(manifest: Manifest) -> frozenset[str]:
    """The features that are a part of the time, and the crosses that contain one."""
    named = [(one.name, one.identity) for one in manifest.categorical if one.identity]
    return frozenset(name for name, what in named if {what.source, *(part.source for part in what.cross)} & PARTS_OF_TIME)


def judge(line: Line, good: Sequence[Line], settings: WatchConfig, of_time: Collection[str] = ()) -> list[str]:
    """Judges the rows of a window and their test, before training on them.

    Args:
        line: ledger entry of the window, with `data` and `test`.
        good: entries of the trained windows, oldest first. The first one is ignored, because an untrained model scored it.
        of_time: features whose new and most frequent values are not judged. In the first window of a weekday, all its values are unknown;
            a wrong time raises the alarm `clock`.

    Returns:
        a sentence for each alarm, which begins with its kind; empty if there are fewer than `after` windows to compare with.
    """
    past = list(good[1:])[-settings.history :]
    if len(past) < settings.after:
        return []
    watch = _Watch(line, past, settings)
    rows, positives = line["rows"], max(line["positives"], 1)
    by_clicks = 1 / math.sqrt(min(positives, max(rows - positives, 1)))
    watch.level("ne", lambda one: one["test"]["ne"], settings.ne, lambda ne: ne * by_clicks, up_only=True)
    watch.level("calibration", lambda one: _log(one["test"]["calibration"]), settings.calibration, lambda _: by_clicks)
    watch.change("cec", lambda one: one["test"]["cec"], settings.cec, up_only=True)
    for expert in range(len(line["test"]["gate_mass"])):
        watch.change(f"gate of expert {expert}", partial(_gate, expert), settings.share)
    # New tokens of windows that were not trained are unknown too, about the same number in each window.
    since = line["window"] - good[-1]["window"]
    kinds = {"unknown": "unknown values of", "missing": "missing values of", "top": "most frequent value of"}
    for kind, words in kinds.items():
        for name in line["data"][kind]:
            if name in of_time and kind != "missing":
                continue
            share = partial(_share, kind, name, line["window"], since if kind == "unknown" else 1)
            error = partial(_share_error, rows)
            watch.level(f"{words} {name}", share, settings.share, error, up_only=True, recent=kind == "unknown")
    for name in line["data"]["means"]:
        watch.number(name)
    watch.clock()
    return watch.alarms


def judge_learned(line: Line, good: Sequence[Line], settings: WatchConfig) -> list[str]:
    """Judges the model after training on the window, by `norms`, `loss` and `after` (figures of the window's rows after training)."""
    alarms = []
    if line["loss"] is None or not math.isfinite(line["loss"]):
        alarms.append("not finite: the loss")
    before, after = line["test"]["ne"], line["after"]["ne"]
    if before is not None and after is not None and len(good) >= settings.after and after > before + settings.ne:
        alarms.append(f"learned: NE of its own rows is {after:.4f} after they were learned, and was {before:.4f}")
    past = [one["norms"] for one in list(good)[-settings.history :]]
    if len(past) > settings.after:
        for part in ("tables", "dense"):
            norms = [one[part] for one in past]
            changes = [abs(b / a - 1) for a, b in pairwise(norms) if a]
            now = abs(line["norms"][part] / norms[-1] - 1) if norms[-1] else 0.0
            if now > settings.norm + settings.deviations * float(np.std(changes)):
                alarms.append(f"norm: that of the {part} is {line['norms'][part]:.4g}, and was {norms[-1]:.4g}")
    return alarms


def notes(line: Line, good: Sequence[Line], settings: WatchConfig) -> list[str]:
    """Notes, which are not alarms: a window with few rows."""
    rows = [one["rows"] for one in list(good)[-settings.history :]]
    if len(rows) < settings.after or line["rows"] >= 0.1 * float(np.median(rows)):
        return []
    return [f"few rows: {line['rows']:,}, the windows before have {int(np.median(rows)):,}"]


def _gate(expert: int, one: Line) -> float:
    return float(one["test"]["gate_mass"][expert])


def _share(kind: str, name: str, newest: int, since: int, one: Line) -> float | None:
    share: float | None = one["data"][kind].get(name)
    return share / since if share is not None and one["window"] == newest else share


def _share_error(rows: int, share: float) -> float:
    return math.sqrt(max(share * (1 - share), 1 / rows) / rows)


class _Watch:
    """Compares a window with earlier ones, and collects alarms."""

    def __init__(self, line: Line, past: Sequence[Line], settings: WatchConfig) -> None:
        self.line, self.past, self.settings = line, past, settings
        self.alarms: list[str] = []

    def level(
        self,
        kind: str,
        of: Callable[[Any], float | None],
        allowed: float,
        error: Callable[[float], float],
        up_only: bool = False,
        recent: bool = False,
    ) -> None:
        """Compares a figure with its median over earlier windows.

        Args:
            kind: name of the figure in messages.
            of: ledger entry -> value of the figure.
            allowed: tolerance.
            error: value -> its standard error for the rows of this window.
            up_only: only higher values are alarms.
            recent: compares with the previous window if its value is higher than the median, because a figure needs some windows to recover
                after windows that were not trained.
        """
        now, past = of(self.line), [value for one in self.past if (value := of(one)) is not None]
        if len(past) < self.settings.after:
            return
        middle = float(np.median(past))
        if now is None:
            self.alarms.append(f"{kind}: has no value, and was {middle:.4g}")
            return
        spread = SCALED_MAD * float(np.median(np.abs(np.array(past) - middle)))
        middle = max(middle, past[-1]) if recent else middle
        self._hold(kind, now, middle, now - middle, allowed + self.settings.deviations * math.hypot(spread, error(middle)), up_only)

    def change(self, kind: str, of: Callable[[Any], float | None], allowed: float, up_only: bool = False) -> None:
        """Compares a figure with that of the previous window."""
        now, past = of(self.line), [value for one in self.past if (value := of(one)) is not None]
        if now is None or len(past) < 2:
            return
        spread = float(np.std(np.diff(past)))
        self._hold(kind, now, past[-1], now - past[-1], allowed + self.settings.deviations * spread, up_only)

    def number(self, name: str) -> None:
        """Compares mean and deviation of a numeric feature with earlier windows, in units of its usual deviation."""
        pairs = [one["data"]["means"][name] for one in self.past if name in one["data"]["means"]]
        if len(pairs) < self.settings.after:
            return
        usual = float(np.median([deviation for _, deviation in pairs]))
        if not usual:
            return
        mean, deviation = self.line["data"]["means"][name]
        scaled = [one / usual for one, _ in pairs]
        middle = float(np.median(scaled))
        spread = math.hypot(SCALED_MAD * float(np.median(np.abs(np.array(scaled) - middle))), 1 / math.sqrt(self.line["rows"]))
        distance = mean / usual - middle
        self._hold(f"mean of {name}", mean, middle * usual, distance, self.settings.mean + self.settings.deviations * spread, False)
        if deviation < CONSTANT * usual:
            self.alarms.append(f"number {name}: varies by {deviation:.4g}, and did by {usual:.4g}")

    def clock(self) -> None:
        """Compares the time of the first row with the usual interval between windows."""
        times = [one["data"]["time"] for one in self.past if one["data"].get("time") is not None]
        now = self.line["data"].get("time")
        steps = np.diff(times)
        usual = float(np.median(np.abs(steps))) if len(steps) else 0.0
        if now is None or len(times) < self.settings.after or not usual:
            return
        jump = now - times[-1]
        if abs(jump) > self.settings.gap * usual:
            self.alarms.append(f"clock: its rows are {jump:,.0f} s after those of the window before, and were {usual:,.0f} s")

    def _hold(self, kind: str, now: float, before: float, distance: float, most: float, up_only: bool) -> None:
        if distance > most or (not up_only and -distance > most):
            self.alarms.append(f"{kind}: {now:.4g}, and was {before:.4g}")


def _log(ratio: float | None) -> float | None:
    return math.log(ratio) if ratio else None
