"""An acceptance's report: verdicts, exit code, nothing of the machine that made it; stages bounded by their level's time."""

import dataclasses
import html.parser
import json
import re
import socket
import types

import pytest

from dmoe.accept import program, report
from dmoe.accept.conductor import Job, Stage, chosen, conduct
from dmoe.accept.finding import FAILED, HELD, SKIPPED, Failed, Figure, Finding, Skipped
from dmoe.accept.program import Options, accept
from dmoe.accept.report import as_data, as_line, as_page, masked
from dmoe.accept.stages.stages import STAGES
from dmoe.cli import accept as command
from dmoe.cli.main import parse
from dmoe.errors import UserError

FINDINGS = [
    Finding("kernels", HELD, "It holds.", "", (Figure("kernels", 13), Figure("difference", 3e-6, "", "at most 0.0002")), 12.0, 100.0),
    Finding("plan", FAILED, "It does not.", "rank 0 wrote /shared/runs/a.json on " + socket.gethostname(), (Figure("x", float("nan")),)),
    Finding("host memory", SKIPPED, "Nothing is known of this: it holds.", "it needs a GPU"),
]
ABOUT = {"torch": "2.13.0", "device": "x86_64", "ranks": 2, "host names": ["node-7"]}


def job() -> Job:
    return Job(types.SimpleNamespace(until=0.0, size=1), "quick", "", 1, False)  # type: ignore[arg-type]


def stage(name: str, run) -> Stage:
    return Stage(name, "It holds.", "It does not.", run, 50)


def raising(error: Exception):
    def run(job: Job, notes) -> None:
        raise error

    return run


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cannot read /home/a/b.json (no such file)", "cannot read PATH (no such file)"),
        ("'/data/x y': gone", "'PATH y': gone"),
        ("s3://bucket/key is not there", "PATH is not there"),
        (f"rank 1 on {socket.gethostname()}: lost", "rank 1 on HOST: lost"),
        ("connect to 10.0.12.7:2950 of node-7 failed", "connect to ADDRESS:2950 of HOST failed"),
        ("1/2 of 3 GB/s, torch 2.13.0 and/or more", "1/2 of 3 GB/s, torch 2.13.0 and/or more"),
    ],
)
def test_paths_and_hosts_are_masked_and_nothing_else(text, expected):
    assert masked(text, ["node-7.example.com", "node-8"]) == expected


def test_the_data_says_what_held_and_is_json():
    data = json.loads(json.dumps(as_data(FINDINGS, ABOUT, names=False), allow_nan=False))
    assert data["held"] is False
    assert data["counts"] == {"held": 1, "failed": 1, "skipped": 1}
    assert [one["verdict"] for one in data["stages"]] == [HELD, FAILED, SKIPPED]
    assert data["stages"][0]["figures"][1] == {"name": "difference", "value": 3e-6, "unit": "", "limit": "at most 0.0002"}
    assert data["stages"][1]["figures"][0]["value"] is None
    assert data["about"] == {"torch": "2.13.0", "device": "x86_64", "ranks": 2}
    assert as_data(FINDINGS[::2], ABOUT, names=False)["held"] is True


def test_names_are_there_where_they_are_asked_for():
    hidden, shown = (json.dumps(as_data(FINDINGS, ABOUT, names)) for names in (False, True))
    assert "/shared/runs/a.json" in shown
    assert socket.gethostname() in shown
    assert "/shared" not in hidden
    assert not re.search(rf"\b{re.escape(socket.gethostname())}\b", hidden)


class Sources(html.parser.HTMLParser):
    """Whatever a browser would load."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [f"{tag} {name}" for name, _ in attrs if name in ("src", "href", "srcset", "data", "action")]


def test_the_page_is_one_file_with_every_stage_reason_and_figure():
    page, sources = as_page(FINDINGS, ABOUT, names=False), Sources()
    sources.feed(page)
    assert not sources.found
    assert "url(" not in page
    for finding in FINDINGS:
        assert finding.stage in page
        assert finding.meaning in page
        assert all(figure.name in page for figure in finding.figures)
    assert "it needs a GPU" in page


def test_a_line_shows_the_verdict_the_meaning_and_the_reason():
    lines = list(as_line(FINDINGS[1]))
    assert lines[0].startswith("FAIL")
    assert "It does not." in lines[0]
    assert "rank 0 wrote" in lines[1]


@pytest.mark.parametrize(
    ("run", "verdict", "reason"),
    [
        (lambda job, notes: None, HELD, ""),
        (lambda job, notes: notes.within("difference", 3.0, 2.0), FAILED, "difference is 3, allowed are 2"),
        (lambda job, notes: notes.within("difference", float("nan"), 2.0), FAILED, "difference is nan, allowed are 2"),
        (lambda job, notes: notes.at_least("rate", 1.0, 2.0, "GB/s"), FAILED, "rate is 1 GB/s, expected at least 2"),
        (raising(Failed("seen")), FAILED, "seen"),
        (raising(UserError("wrong")), FAILED, "wrong"),
        (raising(ZeroDivisionError("ours")), FAILED, "ZeroDivisionError: ours"),
        (raising(Skipped("no GPU")), SKIPPED, "no GPU"),
    ],
)
def test_whatever_a_stage_does_has_a_verdict_and_the_next_one_runs(run, verdict, reason):
    told: list[Finding] = []
    first, second = conduct([stage("a", run), stage("b", lambda job, notes: None)], job(), 5, told.append)
    assert (first.verdict, second.verdict) == (verdict, HELD)
    assert first.reason.startswith(reason)
    assert told == [first, second]


@pytest.mark.parametrize(
    ("level", "module", "verdict"),
    [("dense", "torchmetrics", SKIPPED), ("dense", "torch", FAILED), ("dense", "dmoe", FAILED), ("quick", "torchmetrics", FAILED)],
)
def test_what_a_machine_with_torch_alone_lacks_is_skipped_at_its_level_only(level, module, verdict):
    absent = Failed(f"rank 0 of 2 raised ModuleNotFoundError: No module named '{module}' (at a:1)")
    (finding,) = conduct([stage("a", raising(absent))], dataclasses.replace(job(), level=level), 5, lambda _: None)
    assert finding.verdict == verdict
    assert module in finding.reason


def test_a_folder_that_a_host_does_not_see_is_named_once_for_all_stages():
    asked = []
    ranks = types.SimpleNamespace(until=0.0, size=2, kept={}, run=lambda function, folder: asked.append(folder) or [True, False])
    one = Job(ranks, "quick", "/shared/a", 2, False)  # type: ignore[arg-type]
    found = conduct([stage(name, lambda job, notes: job.shared) for name in "ab"], one, 5, lambda _: None)
    assert [(finding.verdict, "rank 1 does not see it" in finding.reason) for finding in found] == [(FAILED, True)] * 2
    assert asked == ["/shared/a"]
    (none,) = conduct([stage("c", lambda job, notes: job.shared)], dataclasses.replace(one, folder=""), 5, lambda _: None)
    assert none.verdict == SKIPPED


@pytest.mark.parametrize("error", [Failed("late"), Skipped("late"), ZeroDivisionError("late")], ids=repr)
def test_a_problem_that_was_seen_is_told_first_and_fails_the_stage_however_it_ends(error):
    def run(job: Job, notes) -> None:
        notes.hold(False, "seen")
        raise error

    (finding,) = conduct([stage("a", run)], job(), 5, lambda _: None)
    assert finding.verdict == FAILED
    assert finding.reason.startswith("seen; ")
    assert "late" in finding.reason


def test_many_problems_are_told_by_the_first_of_them():
    def run(job: Job, notes) -> None:
        for number in range(40):
            notes.hold(False, f"problem {number}")

    (finding,) = conduct([stage("a", run)], job(), 5, lambda _: None)
    assert finding.reason.startswith("problem 0; problem 1; ")
    assert finding.reason.endswith("and 35 more")


def test_what_the_level_has_no_time_left_for_has_failed_and_was_not_run():
    ran = []
    (finding,) = conduct([stage("a", lambda job, notes: ran.append(1))], job(), 0.001, lambda _: None)
    assert (finding.verdict, ran) == (FAILED, [])
    assert "0.001 minutes" in finding.reason


def test_a_stage_s_bound_is_a_share_of_the_level_s_time():
    (finding,) = conduct([stage("a", lambda job, notes: None)], job(), 10, lambda _: None)
    assert finding.bound == pytest.approx(100, abs=1)


def test_the_stages_of_a_level_and_a_name_that_is_none():
    assert {one.name for one in chosen(STAGES, "dense", [])} == {"versions", "collectives", "experts", "losses", "metrics"}
    assert [one.name for one in chosen(STAGES, "quick", ["plan", "kernels"])] == ["kernels", "plan"]
    with pytest.raises(UserError, match=r"^--only kernel: .*'kernels'"):
        chosen(STAGES, "quick", ["kernel"])
    with pytest.raises(UserError, match=r"^--only kernels: .*dense"):
        chosen(STAGES, "dense", ["kernels"])
    assert len({one.name for one in STAGES}) == len(STAGES)


@pytest.mark.parametrize(
    ("options", "named"),
    [(Options(ranks=0), "--ranks 0"), (Options(minutes=0), "--minutes 0"), (Options(minutes=float("nan")), "--minutes nan")],
)
def test_an_impossible_option_is_named(options, named):
    with pytest.raises(UserError, match=f"^{named}: "):
        accept(options, STAGES)


def test_a_report_s_folder_that_is_not_there_is_named_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(program, "accept", None)
    for option in ("--report", "--json"):
        with pytest.raises(UserError, match=f"^{option} .*/none/a: "):
            command.run(parse(["accept", option, str(tmp_path / "none/a")])[2])


@pytest.mark.parametrize(("findings", "code"), [(FINDINGS, 1), (FINDINGS[::2], 0)])
def test_the_exit_code_is_0_only_where_nothing_failed(findings, code, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(program, "accept", lambda options, stages, told: ([told(one) or one for one in findings], ABOUT))
    files = [str(tmp_path / "a.html"), str(tmp_path / "a.json")]
    _, module, arguments = parse(["accept", "--report", files[0], "--json", files[1]])
    assert module is command
    assert module.run(arguments) == code
    assert json.loads((tmp_path / "a.json").read_text()) == json.loads(json.dumps(as_data(findings, ABOUT, False)))
    assert (tmp_path / "a.html").read_text() == report.as_page(findings, ABOUT, False)
    assert f"{1 if code else 0} failed" in capsys.readouterr().out
