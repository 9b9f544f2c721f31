"""The ladder's file: what it makes of variants, and what it says of mistakes."""

from pathlib import Path

import pytest

from dmoe.config.config import load_config
from dmoe.errors import UserError
from dmoe.report.ladder.runner import make_jobs
from dmoe.report.ladder.spec import load_spec, resolve

GOOD = """
base: base.yaml
variants:
  a: {set: {model: {embedding: {sets: shared}}}}
  b: {like: a, label: B, set: {model: {embedding: {dim: 32}}, correlation: {alpha: 0.5}}}
rungs: [a, b]
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "base.yaml").write_text("model: {embedding: {dim: 8}, experts: [mlp, cin]}\n")
    return tmp_path


def write(folder, text: str) -> str:
    path = folder / "ladder.yaml"
    path.write_text(text)
    return str(path)


def test_a_variant_is_laid_over_what_it_is_like_and_that_over_the_base(folder):
    path = write(folder, GOOD)
    config = resolve(load_spec(path), path, "b", 3, ["train.batch_size=77"], "runs/b")
    assert (config.model.embedding.sets, config.model.embedding.dim, config.correlation.alpha) == ("shared", 32, 0.5)
    assert (config.model.experts, config.train.batch_size, config.train.seed, config.variant) == (["mlp", "cin"], 77, 3, "B")
    assert config.metrics.predictions


def test_a_student_is_taught_by_the_run_of_its_own_seed_and_trained_after_it(folder):
    path = write(folder, GOOD.replace("b: {like: a,", "b: {like: a, teacher: a,"))
    jobs = make_jobs(load_spec(path), path, range(2), [], str(folder / "out"))
    assert [(job.variant, job.seed, job.teacher) for job in jobs] == [
        ("a", 0, ""),
        ("b", 0, str(folder / "out/runs/a/seed-0")),
        ("a", 1, ""),
        ("b", 1, str(folder / "out/runs/a/seed-1")),
    ]
    assert [load_config(job.config).distill.teachers for job in jobs] == [[job.teacher] if job.teacher else [] for job in jobs]


def test_a_ladder_extends_another(folder):
    write(folder, GOOD)
    (folder / "more.yaml").write_text("extends: ladder.yaml\ntitle: more\nvariants: {a: {set: {model: {embedding: {dim: 9}}}}}\n")
    path = str(folder / "more.yaml")
    spec = load_spec(path)
    assert spec.title == "more"
    assert resolve(spec, path, "a", 0, [], "r").model.embedding.dim == 9


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("rungs: [a, b]", "rungs: [a, bb]"), "no variant 'bb', did you mean 'b'?"),
        (GOOD.replace("a: {set", "a: {teacher: b, set"), "variants.a.teacher: 'b' has to stand above it"),
        (GOOD.replace("like: a", "teacher: c"), "no variant 'c'"),
        (GOOD.replace("like: a", "like: b"), "variants.b: like: goes in a circle"),
        (
            GOOD.replace("set: {model: {embedding: {sets", "sett: {model: {embedding: {sets"),
            "variants.a.sett: unknown key, did you mean 'set'?",
        ),
        (GOOD + "ensembles: {e: {label: E, of: [a]}}", "ensembles.e.of"),
        (GOOD + "ensembles: {e: {label: E, of: [a, c]}}", "no variant 'c'"),
        (GOOD.replace("  b:", "  ../b:").replace("b]", "../b]"), "its name becomes a folder's"),
        ("- a", "expected keys such as 'base:'"),
        ("a: [", "not YAML"),
        ("extends: ladder.yaml", "extend one another"),
        (GOOD.replace("dim: 32", "dims: 32"), "model.embedding.dims: unknown key, did you mean 'dim'?"),
        (GOOD.replace("base.yaml", "none.yaml"), "none.yaml: no such file"),
    ],
)
def test_mistakes_are_named(folder, text, message):
    path = write(folder, text)
    with pytest.raises(UserError) as error:
        resolve(load_spec(path), path, "b", 0, [], "r")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_the_shipped_ladders_resolve():
    paths = sorted(Path("configs").glob("ladder_*.yaml"))
    assert len(paths) == 6
    for path in map(str, paths):
        spec = load_spec(path)
        for name in spec.variants:
            resolve(spec, path, name, 0, [], "r")
    frappe = "configs/ladder_frappe.yaml"
    assert resolve(load_spec(frappe), frappe, "hetero_se_wide", 0, [], "r").model.embedding.dim == 48


def test_the_experts_ladder_varies_one_thing_at_a_time():
    """Four arms and two of agreement, on three table sets: within an arm all losses are alike, within a table set all tables."""
    path = "configs/ladder_experts.yaml"
    spec = load_spec(path)
    arms = ("none", "sup", "dec", "both", "kdef", "kdef_dec")
    found = {name: resolve(spec, path, name, 0, [], "r") for name in spec.variants}
    for arm in arms:
        assert len({str((found[f"{kind}_{arm}"].correlation, found[f"{kind}_{arm}"].supervision)) for kind in ("me", "light", "wide")}) == 1
    for kind in ("me", "light", "wide"):
        assert len({str((found[f"{kind}_{arm}"].model.embedding, found[f"{kind}_{arm}"].model.experts)) for arm in arms}) == 1
        assert len({str((found[f"{kind}_{arm}"].correlation, found[f"{kind}_{arm}"].supervision)) for arm in arms}) == len(arms)
