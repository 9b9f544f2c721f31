"""Detects defects of experts that lower CEC without making the model better: a low CEC alone does not prove diversity."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

STARVED_SHARE, STARVED_SPREAD = 0.3, 0.6
SHRUNK_VARIANCE = 1e-3
NOISE_AUC, NO_LOSS = 0.52, 1e-4
PAIRED_ERRORS = 0.5
"""Two AUCs on the same rows count as equal if they differ by less than this share of the standard error of one AUC. On 6,000 rows, the
AUC without one of eight sound experts was higher by 3e-4 by chance."""
COPY_CKA, COPY_CEC_SHARE = 0.95, 0.7


@dataclass(frozen=True)
class Finding:
    """A defect of some experts of a run. Findings of other seeds are the same if `kind` and `experts` are equal."""

    kind: str
    experts: tuple[int, ...]
    says: str


def warnings(metrics: dict[str, Any], names: list[str] | None = None) -> list[str]:
    """Sentences on the defects of the experts of a run, from its final metrics; empty if none is found.

    Args:
        metrics: content of metrics.json.
        names: names of the experts; without them, experts are named by index.
    """
    return [finding.says for finding in findings(metrics, names)]


def findings(metrics: dict[str, Any], names: list[str] | None = None) -> list[Finding]:
    """Like `warnings`, but with the kind of each defect and the experts that have it."""
    experts = len(metrics["gate_mass"])
    if experts < 2:
        return []
    names = [f"expert {index} ({name})" for index, name in enumerate(names or [""] * experts)] if names else _numbers(experts)
    dead = _dead(metrics, names)
    return [*dead, *_shrunk(metrics, names, dead), *_starved(metrics, names), *_noise(metrics, names, dead), *_copies(metrics, names)]


def _numbers(experts: int) -> list[str]:
    return [f"expert {index}" for index in range(experts)]


def _of(found: list[Finding]) -> set[int]:
    return {index for finding in found for index in finding.experts}


def _dead(metrics: dict[str, Any], names: list[str]) -> list[Finding]:
    width = metrics.get("expert_dim") or max(*metrics["dead_dims"], 1)
    found = []
    for index, count in enumerate(metrics["dead_dims"]):
        if count and metrics["expert_variance"][index] == 0:
            says = "is dead: none of its outputs varies, so its correlations count as 0 and pull CEC down"
            found.append(Finding("dead", (index,), f"{names[index]} {says}"))
        elif count:
            of = f" of {width}" if count < width else ""
            found.append(Finding("dead dims", (index,), f"{names[index]} has {count} dead dims{of}: they count as uncorrelated in CEC"))
    return found


def _shrunk(metrics: dict[str, Any], names: list[str], dead: list[Finding]) -> list[Finding]:
    variance = metrics["expert_variance"]
    largest, known = max(variance), _of(dead)
    found = [
        Finding(
            "shrunk",
            (index,),
            f"{names[index]}'s outputs have shrunk to a variance of {value:.1e}, {value / largest:.0e} of the largest: a"
            " covariance loss falls with the scale, Pearson's r does not",
        )
        for index, value in enumerate(variance)
        if index not in known and largest > 0 and value < SHRUNK_VARIANCE * largest
    ]
    if 0 < largest < 1e-6:
        found.append(Finding("all shrunk", (), "all experts' outputs have shrunk: no variance reaches 1e-6"))
    return found


def _starved(metrics: dict[str, Any], names: list[str]) -> list[Finding]:
    mass = metrics["gate_mass"]
    found = [
        Finding("starved", (i,), f"{names[i]} is starved: it gets {share:.1%} of the gate's mass, {1 / len(mass):.0%} would be even")
        for i, share in enumerate(mass)
        if share < STARVED_SHARE / len(mass)
    ]
    if not found and metrics["effective_experts"] < STARVED_SPREAD * len(mass):
        found.append(Finding("narrow gate", (), f"the gate uses {metrics['effective_experts']:.1f} of {len(mass)} experts"))
    return found


def _noise(metrics: dict[str, Any], names: list[str], dead: list[Finding]) -> list[Finding]:
    found, known = [], _of([finding for finding in dead if finding.kind == "dead"])
    for index, solo in enumerate(metrics["expert_auc"]):
        without = (metrics.get("expert_left_out_auc") or [None] * len(names))[index]
        if index not in known and solo is not None and abs(solo - 0.5) < NOISE_AUC - 0.5:
            says = f"{names[index]} alone ranks at chance (AUC {solo:.3f}): noise is uncorrelated with everything"
            found.append(Finding("at chance", (index,), says))
        if without is not None and metrics["auc"] is not None and without > metrics["auc"] + _chance(metrics):
            says = f"without {names[index]} the AUC would be {without:.4f}, not {metrics['auc']:.4f}: it does harm"
            found.append(Finding("harm", (index,), says))
    return found


def _chance(metrics: dict[str, Any]) -> float:
    """The largest difference between two AUCs on these rows that counts as chance, from the standard error of Hanley and McNeil (1982)."""
    auc, positives = metrics["auc"], metrics.get("positives", 0)
    negatives = metrics.get("rows", 0) - positives
    if positives < 1 or negatives < 1:
        return NO_LOSS
    above, below = auc / (2 - auc) - auc**2, 2 * auc**2 / (1 + auc) - auc**2
    variance = (auc * (1 - auc) + (positives - 1) * above + (negatives - 1) * below) / (positives * negatives)
    return max(NO_LOSS, PAIRED_ERRORS * math.sqrt(max(variance, 0)))


def _copies(metrics: dict[str, Any], names: list[str]) -> list[Finding]:
    cka, cec = np.array(metrics["cka_matrix"]), np.array(metrics["cec_matrix"])
    found = []
    for one in range(len(cka)):
        for other in range(one + 1, len(cka)):
            ceiling = np.sqrt(cec[one, one] * cec[other, other])
            if cka[one, other] > COPY_CKA:
                low = " although CEC looks low" if cec[one, other] < COPY_CEC_SHARE * ceiling else ""
                says = f"{names[one]} and {names[other]} hold the same up to a rotation (CKA {cka[one, other]:.2f}){low}"
                found.append(Finding("copies", (one, other), says))
    return found
