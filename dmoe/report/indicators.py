"""What lowers CEC without helping, and how it shows: a low CEC is no proof of diversity, so these stand beside it."""

from typing import Any

import numpy as np

STARVED_SHARE, STARVED_SPREAD = 0.3, 0.6
SHRUNK_VARIANCE = 1e-3
NOISE_AUC, NO_LOSS = 0.52, 1e-4
COPY_CKA, COPY_CEC_SHARE = 0.95, 0.7


def warnings(metrics: dict[str, Any], names: list[str] | None = None) -> list[str]:
    """Sentences on what is wrong with a run's experts, from its final figures; none where nothing shows.

    Args:
        metrics: of metrics.json.
        names: of the experts; their numbers where absent.
    """
    experts = len(metrics["gate_mass"])
    if experts < 2:
        return []
    names = [f"expert {index} ({name})" for index, name in enumerate(names or [""] * experts)] if names else _numbers(experts)
    dead = _dead(metrics, names)
    return [
        *dead.values(),
        *_shrunk(metrics, names, dead),
        *_starved(metrics, names),
        *_noise(metrics, names, dead),
        *_copies(metrics, names),
    ]


def _numbers(experts: int) -> list[str]:
    return [f"expert {index}" for index in range(experts)]


def _dead(metrics: dict[str, Any], names: list[str]) -> dict[int, str]:
    width = metrics.get("expert_dim") or max(*metrics["dead_dims"], 1)
    found = {}
    for index, count in enumerate(metrics["dead_dims"]):
        if count and metrics["expert_variance"][index] == 0:
            found[index] = f"{names[index]} is dead: none of its outputs varies, so its correlations count as 0 and pull CEC down"
        elif count:
            found[index] = (
                f"{names[index]} has {count} dead dims{f' of {width}' if count < width else ''}: they count as uncorrelated in CEC"
            )
    return found


def _shrunk(metrics: dict[str, Any], names: list[str], dead: dict[int, str]) -> list[str]:
    variance = metrics["expert_variance"]
    largest = max(variance)
    return [
        f"{names[index]}'s outputs have shrunk to a variance of {value:.1e}, {value / largest:.0e} of the largest: a"
        " covariance loss falls with"
        " the scale, Pearson's r does not"
        for index, value in enumerate(variance)
        if index not in dead and largest > 0 and value < SHRUNK_VARIANCE * largest
    ] + (["all experts' outputs have shrunk: no variance reaches 1e-6"] if 0 < largest < 1e-6 else [])


def _starved(metrics: dict[str, Any], names: list[str]) -> list[str]:
    mass = metrics["gate_mass"]
    found = [
        f"{names[index]} is starved: it gets {share:.1%} of the gate's mass, {1 / len(mass):.0%} would be even"
        for index, share in enumerate(mass)
        if share < STARVED_SHARE / len(mass)
    ]
    if not found and metrics["effective_experts"] < STARVED_SPREAD * len(mass):
        found.append(f"the gate uses {metrics['effective_experts']:.1f} of {len(mass)} experts")
    return found


def _noise(metrics: dict[str, Any], names: list[str], dead: dict[int, str]) -> list[str]:
    found = []
    for index, solo in enumerate(metrics["expert_auc"]):
        without = (metrics.get("expert_left_out_auc") or [None] * len(names))[index]
        chance = solo is not None and abs(solo - 0.5) < NOISE_AUC - 0.5
        useless = without is not None and metrics["auc"] is not None and without > metrics["auc"] + NO_LOSS
        if index not in dead and chance:
            found.append(f"{names[index]} alone ranks at chance (AUC {solo:.3f}): noise is uncorrelated with everything")
        if useless:
            found.append(f"without {names[index]} the AUC would be {without:.4f}, not {metrics['auc']:.4f}: it does harm")
    return found


def _copies(metrics: dict[str, Any], names: list[str]) -> list[str]:
    cka, cec = np.array(metrics["cka_matrix"]), np.array(metrics["cec_matrix"])
    found = []
    for one in range(len(cka)):
        for other in range(one + 1, len(cka)):
            ceiling = np.sqrt(cec[one, one] * cec[other, other])
            if cka[one, other] > COPY_CKA:
                low = " although CEC looks low" if cec[one, other] < COPY_CEC_SHARE * ceiling else ""
                found.append(f"{names[one]} and {names[other]} hold the same up to a rotation (CKA {cka[one, other]:.2f}){low}")
    return found
