"""The specification of a ladder: a base config and named variants, each with only the settings that differ."""

from typing import Any

from pydantic import Field, model_validator

from dmoe.config.config import Config, load_config, parse_config, setting
from dmoe.config.shipped import find_config
from dmoe.config.strict import Strict, Text, checked
from dmoe.config.yaml_files import dump_yaml, laid_over, read_extended
from dmoe.errors import UserError, nearest
from dmoe.json_text import format_json


class Variant(Strict):
    """A model of the ladder.

    Attributes:
        like: the variant that it is laid over; the base config where absent.
        teacher: the variant whose run of the same seed it is distilled from.
        set: what differs, as the config's tree.
        why: one sentence for the report.
    """

    label: Text = ""
    like: str = ""
    teacher: str = ""
    set: dict[str, Any] = Field({})
    why: Text = ""


class Ensemble(Strict):
    """The mean of the logits of variants that were trained alone, seed by seed: it costs no training of its own."""

    label: Text
    of: list[str] = Field(min_length=2)
    why: Text = ""


class Comparison(Strict):
    """A question that the report answers: does `variant` beat `against`, or, with `within`, is its AUC the same to so much?"""

    variant: str
    against: str
    question: Text
    within: float | None = Field(None, gt=0, lt=1)


class Dose(Strict):
    """Variants that differ in one number: the response to it is drawn and tested for a trend."""

    key: str = "correlation.alpha"
    variants: dict[str, float] = Field(min_length=2)


class LadderSpec(Strict):
    """What `dmoe report ladder --config` reads.

    Attributes:
        base: a config; a file names it relative to itself.
        rungs: variants from the baseline up; each is compared with the one before and with the first.
        controls: further questions.
    """

    title: Text = "Ladder"
    base: str
    variants: dict[str, Variant] = Field(min_length=1, max_length=1000)
    rungs: list[str] = Field(min_length=2)
    controls: list[Comparison] = Field([])
    dose: Dose | None = None
    ensembles: dict[str, Ensemble] = Field({})

    @model_validator(mode="after")
    def _names_are_known(self) -> "LadderSpec":
        known = [*self.variants, *self.ensembles]
        named = [*self.rungs, *(name for one in self.controls for name in (one.variant, one.against))]
        trained = [*(self.dose.variants if self.dose else []), *(name for one in self.ensembles.values() for name in one.of)]
        trained += [named for one in self.variants.values() for named in (one.like, one.teacher) if named]
        for names, choices in ((named, {*known}), (trained, {*self.variants})):
            for name in names:
                if name not in choices:
                    raise ValueError(f"no variant '{name}'{nearest(name, choices)}")
        for name in known:
            if not name.replace("_", "").replace("-", "").replace(".", "").isalnum() or name.startswith("."):
                raise ValueError(f"variant '{name}': its name becomes a folder's; use letters, digits, '_', '-' and '.'")
        before: set[str] = set()
        for name, one in self.variants.items():
            if one.teacher and one.teacher not in before:
                raise ValueError(f"variants.{name}.teacher: '{one.teacher}' has to stand above it, since it is trained first")
            before.add(name)
        if both := set(self.variants) & set(self.ensembles):
            raise ValueError(f"'{sorted(both)[0]}' is a variant and an ensemble")
        return self

    def label(self, name: str) -> str:
        one = self.variants.get(name) or self.ensembles[name]
        return one.label or name

    def tree(self, name: str) -> dict[str, Any]:
        """The settings of a variant that override the base config."""
        chain = [name]
        while like := self.variants[chain[-1]].like:
            if like in chain:
                raise UserError(f"variants.{name}: like: goes in a circle")
            chain.append(like)
        merged: dict[str, Any] = {}
        for one in reversed(chain):
            merged = laid_over(merged, self.variants[one].set)
        return merged


def load_spec(path: str) -> LadderSpec:
    """Reads the file of a ladder. A file that `extends:` another one (path relative to this file) contains only the differences. `base` is
    returned as a path relative to the working directory.

    Raises:
        UserError: no such file, not YAML, an unknown key or variant; the message names it.
    """
    path = find_config(path)
    tree = read_extended(path, f"--config {path}", "ladder", "keys such as 'base:' and 'variants:'", names=["base"])
    return checked(LadderSpec.model_validate, tree, path)


def resolve(spec: LadderSpec, path: str, name: str, seed: int, overrides: list[str], run: str, teacher: str = "") -> Config:
    """The complete config of a variant for a seed. The variant overrides the base, and the `--set` options of the command override both.

    Args:
        teacher: the run that the variant is distilled from; empty for none.

    Raises:
        UserError: an unknown key of the config, or inconsistent settings.
    """
    tree = load_config(spec.base).model_dump(mode="json")
    where = f"{path}: variants.{name}"
    for key, value in spec.tree(name).items():
        tree[key] = laid_over(tree.get(key, {}), value)
    fixed = [f"train.seed={seed}", setting("run.dir", run), "metrics.predictions=true"]
    if teacher:
        fixed.append(f"distill.teachers={format_json([teacher])}")
    config = parse_config(dump_yaml(tree), where, [*overrides, *fixed])
    return config.model_copy(update={"variant": spec.label(name)})
