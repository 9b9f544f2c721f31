"""Checks that a data set gives the same ids and numbers to the same values as the data set that a model was trained on."""

import math
from collections.abc import Iterable
from itertools import zip_longest

from pydantic import Field

from dmoe.config.sections import DataConfig
from dmoe.data.dataset.identity import NumberIdentity, TokenIdentity
from dmoe.data.dataset.manifest import FILE, RARE_ID, CategoricalFeature, DenseFeature, Manifest
from dmoe.data.dataset.part import Strict
from dmoe.data.dataset.vocabulary_files import file_of, other_vocabulary, read_digests
from dmoe.errors import UserError
from dmoe.storage.paths import join

TOLERANCE = 1e-6
"""Allowed difference of means, in standard deviations, and of deviations, relative: rounding of float32 and of another summation order."""
TOKENS = {
    "text": "the column's text",
    "hex": "hexadecimal numbers",
    "int": "whole numbers",
    "hour": "hours",
    "weekday": "weekdays",
    "is_weekend": "weekends",
    "log2": "log2 buckets",
    "log_squared": "log_squared buckets",
    "edges": "buckets between edges",
    "cross": "a cross",
}


class Inputs(Strict):
    """The features of a model or a data set, in order, as the manifest describes them. `evidence`: see Manifest.evidence."""

    dense: tuple[DenseFeature, ...] = Field(strict=False)
    categorical: tuple[CategoricalFeature, ...] = Field(strict=False)
    evidence: tuple[str, ...] = Field((), strict=False)


def inputs_of(manifest: Manifest) -> Inputs:
    """All features of a data set."""
    return Inputs(dense=manifest.dense, categorical=manifest.categorical, evidence=manifest.evidence)


def model_inputs(data: DataConfig, manifest: Manifest) -> Inputs:
    """The features of a data set that a model with this config uses."""
    buckets, numbers = data.dense in ("buckets", "both"), data.dense in ("numeric", "both")
    wanted = None if data.features is None else set(data.features)
    return Inputs(
        dense=manifest.dense if numbers else (),
        categorical=tuple(f for f in manifest.categorical if (not wanted or f.name in wanted) and (buckets or f.kind == "token")),
        evidence=manifest.evidence,
    )


def check_compatible(model: Inputs, data: Inputs, folder: str, *, ordered: bool = False, grown: bool = False) -> None:
    """Refuses data whose ids or numbers mean something else than in the training data of the model.

    Args:
        model: the features of the model.
        data: the features of the data set in `folder`.
        ordered: the model is built from the data set, so both must have the same features in the same order.
        grown: the vocabularies of the data set may have further tokens after those of the model.

    Raises:
        UserError: names the first feature that differs, the difference, and how to prepare the data correctly.
    """
    check = _Check(folder, bool(set(model.evidence) & set(data.evidence)), grown)
    if ordered:
        check.order("numeric", (one.name for one in model.dense), (one.name for one in data.dense))
        check.order("categorical", (one.name for one in model.categorical), (one.name for one in data.categorical))
    numbers, features = {one.name: one for one in data.dense}, {one.name: one for one in data.categorical}
    for number in model.dense:
        check.number(number, numbers.get(number.name))
    for feature in model.categorical:
        check.feature(feature, features.get(feature.name))


class _Check:
    """Compares features.

    Args:
        same: both data sets are known to have the same vocabulary. This decides if an identity is not known.
    """

    def __init__(self, folder: str, same: bool, grown: bool) -> None:
        self.folder, self.same, self.grown = folder, same, grown

    def refuse(self, name: str, what: str, remedy: str = "") -> UserError:
        append = " and --new-tokens append" if self.grown else ""
        remedy = remedy or f"prepare the data with --vocabulary of the data set that the model was trained on{append}"
        return UserError(f"{join(self.folder, FILE)}: feature {name} {what}; {remedy}")

    def order(self, kind: str, model: Iterable[str], data: Iterable[str]) -> None:
        for there, here in zip_longest(model, data):
            if there != here:
                what = f"stands where the model was trained with {kind} feature {there}"
                raise self.refuse(here, what) if here else self.refuse(there, "is not there, but the model was trained with it")

    def number(self, model: DenseFeature, data: DenseFeature | None) -> None:
        name = model.name
        if data is None:
            raise self.refuse(name, "is not there, but the model was trained with it")
        if data.transform != model.transform:
            raise self.refuse(name, f"is {data.transform}, but the model was trained with {model.transform}")
        mine, there = data.identity, model.identity
        if mine is None or there is None:
            return self.unknown(name, in_model=there is None)
        self.missing(name, mine, there)
        if (mine.moments is None) != (there.moments is None) or not _close(mine.moments or (0, 1), there.moments or (0, 1)):
            raise self.refuse(name, f"has {_moments(mine)}, but the model was trained with {_moments(there)}")
        return None

    def feature(self, model: CategoricalFeature, data: CategoricalFeature | None) -> None:
        name = model.name
        if data is None:
            raise self.refuse(name, "is not there, but the model was trained with it")
        for what in ("kind", "pooling"):
            if getattr(data, what) != getattr(model, what):
                raise self.refuse(name, f"has {what} {getattr(data, what)}, but the model was trained with {getattr(model, what)}")
        mine, there = data.identity, model.identity
        if mine is not None and there is not None:
            self.source(name, mine, there)
        sizes = f"has {data.cardinality:,} ids, but the model was trained with {model.cardinality:,}"
        if data.cardinality < model.cardinality and self.grown:
            raise self.refuse(name, f"{sizes}: a table can grow, but not shrink")
        if data.cardinality != model.cardinality and not self.grown:
            raise self.refuse(name, sizes)
        if mine is None or there is None:
            return self.unknown(name, in_model=there is None)
        if there.hashed:
            if data.cardinality != model.cardinality:
                raise self.refuse(name, f"{sizes}: a hash to another size changes every id", "prepare the data with the old --hash-size")
            return None
        return self.tokens(model, data, mine, there)

    def source(self, name: str, mine: TokenIdentity, there: TokenIdentity) -> None:
        """Checks that the values of the log become the same tokens."""
        if mine.source != there.source:
            raise self.refuse(name, f"is made of {TOKENS[mine.source]}, but the model was trained with {TOKENS[there.source]}")
        if mine.cross != there.cross:
            crosses = [" x ".join(f"{part.name} ({TOKENS[part.source]})" for part in one.cross) for one in (mine, there)]
            other = ", with other bucket edges" * (crosses[0] == crosses[1])
            raise self.refuse(name, f"is the cross {crosses[0]}, but the model was trained with {crosses[1]}{other}")
        if mine.edges != there.edges:
            raise self.refuse(name, "has other bucket edges than the model was trained with")
        if mine.hashed != there.hashed:
            kinds = ["ids by the hash function " + one.hashed if one.hashed else "the ids of a vocabulary" for one in (mine, there)]
            remedy = "prepare the data with --ids hash and the old --hash-size" if there.hashed else ""
            raise self.refuse(name, f"has {kinds[0]}, but the model was trained with {kinds[1]}", remedy)
        if mine.max_values != there.max_values:
            limits = ["all tokens of a row" if one.max_values is None else f"max_values {one.max_values}" for one in (mine, there)]
            raise self.refuse(name, f"has {limits[0]}, but the model was trained with {limits[1]}")
        self.missing(name, mine, there)

    def missing(self, name: str, mine: TokenIdentity | NumberIdentity, there: TokenIdentity | NumberIdentity) -> None:
        if mine.missing != there.missing:
            texts = [", ".join(map(repr, one.missing[:8])) or "no text" for one in (mine, there)]
            raise self.refuse(name, f"reads {texts[0]} as missing, but the model was trained with {texts[1]}")

    def tokens(self, model: CategoricalFeature, data: CategoricalFeature, mine: TokenIdentity, there: TokenIdentity) -> None:
        """Checks that each id of the model stands for the same token in the data set."""
        if there.tokens is None:
            return self.unknown(model.name, in_model=True)
        found = mine.tokens
        if data.cardinality > model.cardinality:
            path = file_of(self.folder, model.name)
            found, whole, count = read_digests(path, model.cardinality - RARE_ID - 1)
            if count != data.cardinality - RARE_ID - 1 or mine.tokens not in (None, whole):
                raise other_vocabulary(path)
        if found is None:
            return self.unknown(model.name, in_model=False)
        if found != there.tokens:
            raise self.refuse(model.name, "has other tokens, or the same in another order, than the model was trained with")
        return None

    def unknown(self, name: str, in_model: bool) -> None:
        """Refuses features that cannot be compared, because an earlier manifest lacks identities, unless other evidence shows that both
        data sets have the same vocabulary."""
        if self.same:
            return
        if in_model:
            what = "cannot be compared: the model's manifest is an earlier version's, without identities, and its data set is gone"
            raise self.refuse(name, what, "put the data set that the model was trained on back at data.path, as it was")
        raise self.refuse(name, "cannot be compared: an earlier version wrote the manifest, without identities, and no vocabulary is there")


def _close(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return abs(a[0] - b[0]) <= TOLERANCE * max(a[1], b[1]) and math.isclose(a[1], b[1], rel_tol=TOLERANCE)


def _moments(one: NumberIdentity) -> str:
    return "no moments" if one.moments is None else f"mean {one.moments[0]:.6g} and deviation {one.moments[1]:.6g}"
