"""A ladder's scorers are measured once for the same runs, and again for others."""

from types import SimpleNamespace

import pytest

from dmoe.errors import UserError
from dmoe.report.ladder import latency as ladder
from dmoe.report.ladder.runner import Job
from dmoe.report.ladder.spec import LadderSpec
from dmoe.report.latency import BATCHES, Latency

SPEC = LadderSpec.model_validate(
    {"base": "b", "variants": {"a": {}, "b": {}, "c": {}}, "rungs": ["a", "b"], "ensembles": {"e": {"label": "e", "of": ["a", "b"]}}}
)


@pytest.fixture
def measured(tmp_path, monkeypatch) -> list[list[str]]:
    """The scorers of every measurement; the run of `c` has lost its checkpoint."""
    calls: list[list[str]] = []

    def best_step(run: str) -> int:
        if "/c/" in run:
            raise UserError("no checkpoint")
        return 7

    def measure(scorers, rounds):
        calls.append(sorted(scorers))
        return {name: Latency(10, {rows: [0.001] * rounds for rows in BATCHES}) for name in scorers}

    monkeypatch.setattr(ladder, "best_step", best_step)
    monkeypatch.setattr(ladder, "export", lambda *_, **__: None)
    monkeypatch.setattr(ladder, "Scorer", lambda *_, **__: None)
    monkeypatch.setattr(ladder, "measure", measure)
    return calls


def asked(folder, rounds: int = 2, bytes_of_a_scorer: int = 10) -> tuple[dict[str, Latency], list[str]]:
    said: list[str] = []
    jobs = [Job(name, 0, "", f"{folder}/runs/{name}/seed-0") for name in "abc"]
    for job in jobs:
        (folder / f"runs/{job.variant}/seed-0").mkdir(parents=True, exist_ok=True)
        (folder / f"runs/{job.variant}/seed-0/metrics.json").touch()
    costs = {name: SimpleNamespace(scorer_bytes=lambda _: bytes_of_a_scorer) for name in "abc"}
    return ladder.latencies(SPEC, jobs, costs, str(folder), rounds, said.append), said


def test_measured_once_for_the_same_runs(tmp_path, measured):
    found, said = asked(tmp_path)
    assert sorted(found) == ["a", "b", "e"]
    assert found["e"].milliseconds(1) == pytest.approx(2.0)
    assert any("c, seed 0: no checkpoint, so its latency is not measured" in line for line in said)
    assert asked(tmp_path)[0] == found
    assert measured == [["a", "b"]]
    asked(tmp_path, rounds=3)
    assert len(measured) == 2
    for damaged in ("{", "[" * 5000, (tmp_path / "latency.json").read_text().replace('"4096"', '"5000"')):
        (tmp_path / "latency.json").write_text(damaged)
        before = len(measured)
        assert asked(tmp_path)[0] == found
        assert len(measured) == before + 1


def test_scorers_that_do_not_fit_the_disk_are_not_made(tmp_path, measured):
    found, said = asked(tmp_path, bytes_of_a_scorer=1 << 60)
    assert found == {}
    assert any(line.startswith("latency is not measured: the scorers would take") for line in said)
    assert measured == []
