"""Stages that need only PyTorch: experts, gates and towers are compared with float64 on the CPU, losses and metrics with their definitions.

Shapes: N rows of all ranks, B rows of one rank, F fields, K dims, M experts, D width of an expert's output.
"""

import copy
import itertools
from collections.abc import Callable
from typing import Any

from dmoe.accept.conductor import Job
from dmoe.accept.finding import Notes

FORWARD_BOUND, GRADIENT_BOUND, METRIC_BOUND = 1e-4, 1e-3, 1e-6
"""Largest allowed differences, relative to the largest number of a tensor. TF32 products, off by default in PyTorch, exceed them."""
OPTIONS: dict[str, dict[str, Any]] = {"mlp": {"hidden": [32]}, "cin": {"layer_maps": [4]}}
FIELDS, DIM, WIDTH, EXPERTS, ROWS = 6, 8, 8, 3, 203


def experts(job: Job, notes: Notes) -> None:
    """The stage `experts`: checks every kind of expert, gate and mixture, forward and backward."""
    _compare(notes, "modules", "outputs", job.ranks.run(differences))


def _compare(notes: Notes, kinds: str, values: str, told: list[dict[str, tuple[float, float]]]) -> None:
    """Records the differences of values and of gradients that the ranks have told, the largest of all ranks for each kind."""
    notes.figure(kinds, len(told[0]))
    for index, (what, bound) in enumerate(((values, FORWARD_BOUND), ("gradients", GRADIENT_BOUND))):
        notes.differences(what, {name: max(one[name][index] for one in told) for name in told[0]}, bound)


def differences() -> dict[str, tuple[float, float]]:
    """Module -> largest differences of outputs and of gradients on this rank's device from those of a float64 copy on the CPU."""
    import torch

    from dmoe import distributed
    from dmoe.config.model_sections import ModelConfig
    from dmoe.model.assemble import assemble
    from dmoe.model.experts import build_expert, expert_kinds

    torch.manual_seed(distributed.rank())
    x_BFK = torch.randn(ROWS, FIELDS, DIM)
    found = {}
    for kind in expert_kinds():
        expert = build_expert(kind, num_fields=FIELDS, field_dim=DIM, **OPTIONS.get(kind, {}))
        found[f"expert {kind}"] = difference(expert, [x_BFK], lambda module, x: module(x))
    dense_BI, specs = torch.randn(ROWS, 3), [("crossnet", {}), ("mlp", {"hidden": [16]}), ("cin", {"layer_maps": [4]})]
    inputs = [dense_BI, *(torch.randn(ROWS, FIELDS, DIM) for _ in specs)]
    for gate in ("softmax", "mmoe", "mean", "elementwise"):
        mixture = assemble(ModelConfig(gate=gate, expert_dim=WIDTH), FIELDS, 3, specs, [DIM] * 3, [0, 1, 2])
        found[f"gate {gate}"] = difference(mixture, inputs, lambda module, dense, *sets: module(dense, list(sets)).logit_B)
        found[f"scorer, gate {gate}"] = difference(mixture, inputs, lambda module, dense, *sets: module.logits(dense, list(sets)))
    return found


def difference(module: Any, inputs: list[Any], call: Callable[..., Any]) -> tuple[float, float]:
    """The largest relative differences of the output and of all gradients from those in float64 on the CPU."""
    import torch

    from dmoe import distributed

    results = []
    for device, dtype in ((distributed.device_of_this_rank(), torch.float32), (torch.device("cpu"), torch.float64)):
        mine = copy.deepcopy(module).to(device=device, dtype=dtype).eval()
        given = [x.to(device=device, dtype=dtype, copy=True).requires_grad_() for x in inputs]
        out = call(mine, *given)
        # Rows have different weights, so that a gradient that mixes up rows is noticed.
        (out * torch.linspace(0.5, 1.5, len(out), device=device, dtype=dtype).view(-1, *[1] * (out.dim() - 1))).sum().backward()
        gradients = [one.grad for one in (*given, *mine.parameters()) if one.grad is not None]
        results.append((out, gradients))
    (out, gradients), (expected, reference) = results
    if len(gradients) != len(reference):
        return relative(out, expected), float("inf")
    # Gradients that are 0 up to rounding errors are compared relative to the largest gradient.
    least = 1e-4 * max((float(one.abs().max()) for one in reference), default=0.0)
    return relative(out, expected), max((relative(a, b, least) for a, b in zip(gradients, reference, strict=True)), default=0.0)


def relative(a: Any, b: Any, least: float = 1e-12) -> float:
    """The largest difference, divided by the largest number of `b` or by `least`; infinite if the result is NaN."""
    a, b = a.detach().double().cpu(), b.detach().double().cpu()
    if not b.numel():
        return 0.0
    found = float((a - b).abs().max() / b.abs().max().clamp(min=least))
    return found if found == found else float("inf")


def losses(job: Job, notes: Notes) -> None:
    """The stage `losses`: compares all forms of the correlation loss over the rows of all ranks, and gradients, with float64."""
    _compare(notes, "forms of the loss", "losses", job.ranks.run(loss_differences))


FORMS: tuple[dict[str, Any], ...] = (
    {},
    {"reduce": "gather"},
    {"norm": "l2"},
    {"norm": "l2_debiased"},
    {"scope": "diagonal"},
    {"estimator": "covariance", "norm": "l2"},
    {"norm": "l2", "within_class": True},
)


def made_rows(ranks: int) -> tuple[Any, Any, Any]:
    """Makes inputs [N, M, D], labels [N] and masks [N], the same on every rank. N is a multiple of the ranks; some rows are padding."""
    import torch

    generator = torch.Generator().manual_seed(7)
    rows = 64 * ranks
    common = torch.randn(rows, 1, WIDTH, generator=generator)
    inputs = common + torch.randn(rows, EXPERTS, WIDTH, generator=generator) + 0.2
    label = (torch.rand(rows, generator=generator) < 0.4).float()
    mask = torch.ones(rows)
    mask[-3:] = 0
    return inputs, label, mask


def loss_differences() -> dict[str, tuple[float, float]]:
    """Form of the correlation loss -> differences of value and gradient over all ranks from the definition in float64."""
    import torch

    from dmoe import distributed
    from dmoe.model.losses.correlation import CorrelationLoss

    ranks, rank, device = distributed.world_size(), distributed.rank(), distributed.device_of_this_rank()
    inputs_NMD, label_N, mask_N = made_rows(ranks)
    mine = slice(rank * 64, (rank + 1) * 64)
    weight_DD = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(1)))[0] + 0.3
    found = {}
    for form in FORMS:
        options = {key: value for key, value in form.items() if key != "within_class"}
        ours_DD = weight_DD.to(device).clone().requires_grad_()
        outputs_BMD = (inputs_NMD[mine].to(device) @ ours_DD / 4).tanh()
        label_B = label_N[mine].to(device) if "within_class" in form else None
        loss = CorrelationLoss(**options)(outputs_BMD, mask_N[mine].to(device), label_B).loss
        loss.backward()
        assert ours_DD.grad is not None
        # Averages the gradient like DistributedDataParallel.
        grad = distributed.all_reduce_sum(ours_DD.grad.clone()) / ranks
        theirs_DD = weight_DD.double().clone().requires_grad_()
        kept = mask_N > 0
        expected = correlation_of((inputs_NMD[kept].double() @ theirs_DD / 4).tanh(), label_N[kept], form)
        expected.backward()
        name = ", ".join(f"{key} {value}" for key, value in form.items()) or "the default form"
        found[name] = relative(loss.reshape(1), expected.reshape(1)), relative(grad, theirs_DD.grad)
    return found


def correlation_of(outputs_NMD: Any, label_N: Any, form: dict[str, Any]) -> Any:
    """The correlation loss by its definition, pair by pair."""
    import torch

    classes = [label_N == 0, label_N == 1] if form.get("within_class") else [label_N >= 0]
    z_NMD = torch.cat([outputs_NMD[one] - outputs_NMD[one].mean(0) for one in classes])
    if form.get("estimator", "pearson") == "pearson":
        z_NMD = z_NMD / z_NMD.norm(dim=0)
    pairs = []
    for p, q in itertools.combinations(range(outputs_NMD.shape[1]), 2):
        r_DD = z_NMD[:, p].T @ z_NMD[:, q]
        r = r_DD.diagonal() if form.get("scope") == "diagonal" else r_DD
        pair = r.abs().mean() if form.get("norm", "l1") == "l1" else r.square().mean()
        pairs.append((pair - 1 / (len(z_NMD) - 1)).relu() if form.get("norm") == "l2_debiased" else pair)
    return torch.stack(pairs).mean()


def metrics(job: Job, notes: Notes) -> None:
    """The stage `metrics`: compares every streaming metric over the rows of all ranks with NumPy on all rows in one process."""
    told = job.ranks.run(metric_differences)
    for name in told[0]:
        worst = max(one[name] for one in told)
        notes.within(name, worst, METRIC_BOUND)


def metric_differences() -> dict[str, float]:
    """Metric -> difference of its value over all ranks from the definition."""
    import numpy as np
    import torch

    from dmoe import distributed
    from dmoe.metrics import Ambiguity, BinnedAUC, CrossExpertCorrelation, ExactAUC, GroupedAUC
    from dmoe.metrics.evaluation import Evaluation
    from dmoe.model.mixture import Outputs

    ranks, rank, device = distributed.world_size(), distributed.rank(), distributed.device_of_this_rank()
    hidden_NMD, label_N, mask_N = made_rows(ranks)
    # Rounded logits: different values are in different bins, so that the binned AUC is exact too.
    logit_NM = (hidden_NMD.mean(2) * 100).round() / 100
    logit_N, gate_NM = logit_NM[:, 0].contiguous(), hidden_NMD[:, :, 0].softmax(1)
    group_N = torch.arange(len(label_N)) % 5 + 1
    binned, exact, grouped = BinnedAUC(1 << 16).to(device), ExactAUC(), GroupedAUC()
    cec, ambiguity = CrossExpertCorrelation(EXPERTS, WIDTH).to(device), Ambiguity(EXPERTS).to(device)
    evaluation = Evaluation("binned", 1 << 16, device)
    for part in (slice(rank * 64, rank * 64 + 40), slice(rank * 64 + 40, (rank + 1) * 64)):
        logit, label, mask = (x[part].to(device) for x in (logit_N, label_N, mask_N))
        binned.update(logit, label, mask)
        exact.update(logit, label, mask)
        grouped.update(logit, label, mask, group_N[part].to(device))
        cec.update(hidden_NMD[part].to(device), label, mask)
        gate, alone, hidden = (x[part].to(device) for x in (gate_NM, logit_NM, hidden_NMD))
        ambiguity.update(logit, alone, gate, label, mask)
        evaluation.update(Outputs(logit, hidden, gate.unsqueeze(2), alone, alone[:, :0]), label, mask)
    kept = (mask_N > 0).numpy()
    scores, labels = logit_N.double().numpy()[kept], label_N.numpy()[kept] > 0.5
    groups = group_N.numpy()[kept]
    of_group = [(_auc(scores[groups == g], labels[groups == g]), (groups == g).sum()) for g in range(1, 6)]
    sound = [(auc, count) for auc, count in of_group if auc == auc]
    r_PP = np.abs(np.corrcoef(hidden_NMD.double().numpy()[kept].reshape(kept.sum(), -1), rowvar=False))
    matrix_MM = r_PP.reshape(EXPERTS, WIDTH, EXPERTS, WIDTH).mean((1, 3))
    loss_NM = np.logaddexp(0, logit_NM.double().numpy()[kept]) - labels[:, None] * logit_NM.double().numpy()[kept]
    mixed_N = np.logaddexp(0, scores) - labels * scores
    value = float(((gate_NM.double().numpy()[kept] * loss_NM).sum(1) - mixed_N).mean())
    figures = evaluation.compute()
    pairs = [
        ("logloss", figures["logloss"], float(mixed_N.mean())),
        ("calibration", figures["calibration"], float((1 / (1 + np.exp(-scores))).sum() / labels.sum())),
        ("mass of a gate", figures["gate_mass"][0], float(gate_NM.double().numpy()[kept][:, 0].mean())),
        ("AUC of an expert alone", figures["expert_auc"][1], _auc(logit_NM[:, 1].double().numpy()[kept], labels)),
        ("AUC, binned", float(binned.compute()), _auc(scores, labels)),
        ("AUC, exact", float(exact.compute()), _auc(scores, labels)),
        ("GAUC", grouped.compute().value, sum(a * n for a, n in sound) / sum(n for _, n in sound)),
        ("CEC", cec.compute().cec, float(matrix_MM[np.triu_indices(EXPERTS, 1)].mean())),
        ("value of diversity", ambiguity.compute().value, value),
    ]
    return {name: abs(found - expected) if found == found else float("inf") for name, found, expected in pairs}


def _auc(scores: Any, labels: Any) -> float:
    """AUC by counting all pairs; NaN if all labels are equal."""
    positives, negatives = scores[labels], scores[~labels]
    if not len(positives) or not len(negatives):
        return float("nan")
    wins = (positives[:, None] > negatives).sum() + 0.5 * (positives[:, None] == negatives).sum()
    return float(wins / (len(positives) * len(negatives)))
