"""Models whose experts have losses of their own: the same on any plan, layout and number of ranks, and resumable."""

import pytest

from dmoe.testing import resume
from dmoe.testing.small_run import largest_difference, train_and_tell

STEPS, BOUND = 20, 2e-4
SWITCHES = {
    "own towers": ("supervision.expert_weight=0.5", "model.expert_tower=own"),
    "logits, shared tower": ("supervision.expert_weight=0.5", "model.mixture=logits"),
    "balanced, orthogonal": ("specialisation={balance_weight: 0.1, balance: cv2, orthogonality_weight: 0.1}",),
    "sparse gate of three": ("model.gate=dselect_k", "specialisation.gate_entropy_weight=0.1"),
    "normalised experts": ("model.expert_norm=batch",),
    "light": ("model.embedding={sets: light, private_ids: 12}",),
    "hashed": ("model.embedding={sets: hashed, hashed_rows: 20}",),
    "KDEF, de-correlated residuals": (
        "supervision={agreement: kdef, mixture_weight: 0}",
        "model.gate=mean",
        "model.mixture=logits",
        "model.expert_tower=own",
        "correlation.target=residual",
    ),
}


@pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES)
def test_ranks_layouts_and_plans_change_nothing(ranks, data_set, switches):
    (expected,) = ranks(1).run(train_and_tell, data_set, STEPS, "sharding.types=[table_wise]", *switches)
    for size, plan, layout in ((2, "row_wise", "wide"), (2, "data_parallel", "separate"), (3, "table_wise", "separate")):
        found = ranks(size).run(train_and_tell, data_set, STEPS, f"sharding.types=[{plan}]", f"model.embedding.layout={layout}", *switches)
        for losses, tables, dense, _ in found:
            assert losses == pytest.approx(expected[0], rel=1e-5)
            assert largest_difference(expected[1], tables) < BOUND
            assert largest_difference(expected[2], dense) < BOUND


@pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES)
def test_a_resumed_run_goes_on_as_if_undisturbed(ranks, data_set, tmp_path, switches):
    (straight,) = ranks(1).run(resume.undisturbed, data_set, "sharding.types=[table_wise]", *switches)
    (saved,) = ranks(1).run(resume.save, data_set, str(tmp_path), "sharding.types=[table_wise]", *switches)
    for loaded, (losses, tables, dense) in ranks(2).run(
        resume.load_and_go_on, data_set, str(tmp_path), "sharding.types=[row_wise]", "model.embedding.layout=separate", *switches
    ):
        assert largest_difference(saved, loaded) == 0
        assert losses == pytest.approx(straight[0], rel=1e-5)
        assert largest_difference(straight[1], tables) < BOUND
        assert largest_difference(straight[2], dense) < BOUND
