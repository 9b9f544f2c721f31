"""What the report says of ladders whose truth is known.

Shapes: N test rows.
"""

import csv
import io
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from dmoe.config.config import parse_config
from dmoe.model.budget.cost import Cost, SetCost
from dmoe.report.ladder.csv_files import differences_csv, ladder_csv
from dmoe.report.ladder.page import ladder_document
from dmoe.report.ladder.results import Ladder, Result, answer, compare
from dmoe.report.ladder.spec import Comparison, LadderSpec
from dmoe.report.ladder.verdicts import not_supported, supported, verdict
from dmoe.report.statistics import delong, logloss_rows, placements

ROWS, SEEDS = 4000, 5
COST = Cost((SetCost((0, 1), 100, 400, 25, 4),), 400, 50, 400, {"experts": 1000}, 2, 32, 500)


def ladder(skills: dict[str, float], cecs: dict[str, float], seeds: int = SEEDS, jitter: float = 0.01) -> Ladder:
    """Variants whose logits hold that much of the truth; a seed's runs share its luck, which pairing takes out."""
    spec = LadderSpec.model_validate(
        {
            "base": "b.yaml",
            "variants": {name: {"label": name.upper()} for name in skills},
            "rungs": list(skills),
            "dose": {"variants": {name: float(i) for i, name in enumerate(skills)}},
            "controls": [{"variant": list(skills)[-1], "against": next(iter(skills)), "question": "Does it?"}],
        }
    )
    truth_N = np.random.default_rng(9).normal(size=ROWS)
    labels_N = np.random.default_rng(8).random(ROWS) < 1 / (1 + np.exp(-2 * truth_N))
    noise_N = np.random.default_rng(7).normal(size=ROWS)
    results = {}
    for name, skill in skills.items():
        results[name] = result = Result(name, name.upper(), None)
        for seed in range(seeds):
            own = np.random.default_rng([seed, len(name)])
            luck = np.random.default_rng(seed).normal() * 0.1
            logit_N = truth_N * (skill + luck + jitter * own.normal()) + noise_N + 0.05 * own.normal(size=ROWS)
            placed = placements(logit_N, labels_N)
            cec = cecs[name] + 0.001 * own.normal()
            matrix = [[0.5, cec], [cec, 0.5]]
            figures = {"auc": placed.mean, "logloss": float(logloss_rows(logit_N, labels_N).mean()), "cec": cec, "cec_floor": 0.01}
            figures |= {"cec_matrix": matrix, "cka_matrix": matrix, "cka": cec, "gate_mass": [0.5, 0.5], "effective_experts": 2.0}
            figures |= {"expert_auc": [0.7, 0.7], "expert_variance": [1.0, 1.0], "dead_dims": [0, 0], "expert_left_out_auc": [0.6, 0.6]}
            result.metrics[seed], result.logits[seed], result.placed[seed] = figures, logit_N, placed
    return Ladder(spec, results, labels_N, [])


def test_equality_is_said_where_it_was_asked_for_and_shown():
    close = ladder({"a": 1.0, "bb": 1.001, "ccc": 1.5}, {"a": 0.3, "bb": 0.2, "ccc": 0.1}, jitter=0.0)
    asked = [{"variant": one, "against": "a", "question": one, "within": 0.01} for one in ("bb", "ccc")]
    close.spec.controls[:] = [Comparison.model_validate(one) for one in asked]
    same, other = answer(close).controls
    assert same.p_equal is not None
    assert other.p_equal is not None
    assert same.p_equal < 0.05 < other.p_equal
    said = supported(close, answer(close))
    assert any(line.startswith("bb ") and "It is within 0.01" in line for line in said)
    assert any(line.startswith("ccc ") and "not shown" in line for line in said)


def test_differences_csv_has_the_adjusted_p_values_and_those_of_two_one_sided_tests():
    made = ladder({"a": 1.0, "bb": 1.05, "ccc": 1.2}, {"a": 0.3, "bb": 0.2, "ccc": 0.1}, jitter=0.1)
    asked = [("bb", "a", 0.02), ("ccc", "a", 0.02), ("ccc", "bb", None)]
    made.spec.controls[:] = [Comparison(variant=one, against=other, question="q", within=within) for one, other, within in asked]
    rows = list(csv.DictReader(io.StringIO(differences_csv(answer(made)))))
    controls = [row for row in rows if row["kind"] == "control"]
    difference_QS = np.array([np.subtract(made.results[one].values("auc"), made.results[other].values("auc")) for one, other, _ in asked])
    # Holm's adjusted p-value: the smallest level at which the step-down procedure rejects the question.
    p = stats.ttest_1samp(difference_QS, 0, axis=1).pvalue
    holm = [max(min(1, p[j] * sum(p >= p[j])) for j in range(3) if p[j] <= p[i]) for i in range(3)]
    np.testing.assert_allclose([float(row["p_holm"]) for row in controls], holm, rtol=1e-6)
    for row, difference_S, (_, _, within) in zip(controls[:2], difference_QS, asked, strict=False):
        ends = [(-within, "greater"), (within, "less")]
        seeds = [stats.ttest_1samp(difference_S, end, alternative=side).pvalue for end, side in ends]
        mean, high = float(row["auc_rows"]), float(row["auc_rows_high"])
        error = (high - mean) / stats.norm.ppf(0.975)
        over_rows = [stats.norm.sf((mean + within) / error), stats.norm.cdf((mean - within) / error)]
        assert float(row["p_equal"]) == pytest.approx(max(*seeds, *over_rows), rel=1e-4)
        assert float(row["within"]) == within
    assert (controls[2]["within"], controls[2]["p_equal"]) == ("", "")
    assert {row["p_holm"] for row in rows if row["kind"] != "control"} == {""}


MONOTONE = ladder({"a": 1.0, "bb": 1.3, "ccc": 1.7}, {"a": 0.3, "bb": 0.2, "ccc": 0.1})


def test_a_monotone_ladder_is_called_so():
    said = supported(MONOTONE, answer(MONOTONE))
    assert said[0].startswith("AUC rises at every rung of A -> BB -> CCC")
    assert said[1].startswith("CEC falls at every rung")
    assert "BB over A: AUC +" in said[2]
    assert ": higher;" in said[2]
    assert any(line.startswith("Dose and response") and "AUC rises" in line for line in said)
    assert any(line.startswith("Does it? CCC less A") and "higher, p = " in line for line in said)


def test_a_step_that_goes_down_is_called_so():
    down = ladder({"a": 1.0, "bb": 1.5, "ccc": 1.2}, {"a": 0.3, "bb": 0.2, "ccc": 0.1})
    said = supported(down, answer(down))
    assert said[0].startswith("AUC does NOT rise at every rung: it goes the other way, beyond chance over seeds, at BB -> CCC")
    assert verdict(answer(down).steps[1]) == "lower"


def test_what_chance_can_do_is_not_claimed():
    unclear = ladder({"a": 1.0, "bb": 1.0, "ccc": 1.6}, {"a": 0.3, "bb": 0.3, "ccc": 0.1})
    said = supported(unclear, answer(unclear))
    assert said[0].startswith("Whether AUC rises at every rung is not settled")
    assert "A -> BB" in said[0]
    assert answer(unclear).steps[0].sign == 0


def test_a_finding_among_many_questions_is_held_to_more():
    one = answer(MONOTONE).steps[0]
    assert verdict(replace(one, p_holm=0.01)) == "higher"
    assert verdict(replace(one, p_holm=0.2)) == "higher taken alone, not among so many questions"


@pytest.mark.filterwarnings("error")
def test_one_seed_has_no_interval():
    alone = ladder({"a": 1.0, "bb": 1.5}, {"a": 0.3, "bb": 0.2}, seeds=1)
    answers = answer(alone)
    assert verdict(answers.steps[0]) == "one seed: no interval"
    assert any("One seed has no interval" in line for line in not_supported(alone, answers))
    ladder_document(alone, answers, {}, []).html()


def test_rows_interval_of_one_seed_is_delongs():
    alone = ladder({"a": 1.0, "bb": 1.5}, {"a": 0.3, "bb": 0.2}, seeds=1)
    found = compare(alone, "bb", "a").auc_rows
    expected = delong(alone.results["bb"].logits[0], alone.results["a"].logits[0], alone.label)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_pairing_by_seed_takes_the_seeds_luck_out():
    found = compare(MONOTONE, "bb", "a").auc
    aucs = [np.array(MONOTONE.results[name].values("auc")) for name in ("bb", "a")]
    unpaired = np.sqrt(sum(x.var(ddof=1) / SEEDS for x in aucs))
    assert (found.high - found.low) / 2 / 2.776 < unpaired


def test_page_and_tables_hold_every_figure_and_load_nothing():
    answers = answer(MONOTONE)
    page = ladder_document(MONOTONE, answers, dict.fromkeys(MONOTONE.results, COST), ["about <this>"]).html()
    assert "about &lt;this&gt;" in page
    assert page.count("<svg") >= 8
    for outside in ("<link", "src=", "@import"):
        assert outside not in page
    assert "currentColor" in page
    assert "prefers-color-scheme: dark" in page
    assert len(ladder_csv(MONOTONE, {"a": COST}, {}).splitlines()) == 1 + 3 * SEEDS
    assert len(differences_csv(answers).splitlines()) == 1 + 2 + 2 + 1
    assert page == ladder_document(MONOTONE, answers, dict.fromkeys(MONOTONE.results, COST), ["about <this>"]).html()


def test_a_finding_is_said_once_with_its_seeds():
    found = ladder({"a": 1.0, "bb": 1.3}, {"a": 0.3, "bb": 0.2})
    for seed, share in ((1, 0.05), (3, 0.04)):
        found.results["bb"].metrics[seed]["gate_mass"] = [1 - share, share]
    found.results["bb"].config = parse_config("model: {experts: [mlp, cin]}", "here", [])
    page = ladder_document(found, answer(found), {}, []).html()
    assert page.count("is starved") == 1
    assert "BB: expert 1 (cin) is starved: it gets 5.0% of the gate&#x27;s mass, 50% would be even (in 2 of 5 seeds)" in page


def test_unfinished_runs_are_named():
    MONOTONE.missing.append("bb, seed 9")
    assert not_supported(MONOTONE, answer(MONOTONE))[0].startswith("1 run(s) are not finished and not counted: bb, seed 9")
    MONOTONE.missing.clear()


def test_a_label_that_looks_like_a_formula_or_acts_on_a_terminal_is_text_in_csv():
    made = ladder({"a": 1.0, "bb": 1.3}, {"a": 0.3, "bb": 0.2})
    labels = ["=HYPERLINK(0)", "-2+3"]
    for result, label in zip(made.results.values(), labels, strict=True):
        result.label = label
        result.metrics[0] |= {"cka": "+1", "ne": -0.25, "expert_auc": ["@SUM(A1)", 0.5]}
    made.results["a"].metrics[1]["logloss"] = "\x1b[31m"
    rows = list(csv.DictReader(io.StringIO(ladder_csv(made, {}, {}))))
    assert {row["label"] for row in rows} == {f"'{label}" for label in labels}
    assert (rows[0]["cka"], rows[0]["ne"], rows[0]["expert_auc"]) == ("'+1", "-0.25", "'@SUM(A1) 0.5")
    assert all(cell.isprintable() for row in rows for cell in row.values())
