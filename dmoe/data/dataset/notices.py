"""Warnings about a data set that may harm training, one line each, known before the first step."""

from collections.abc import Collection

from dmoe.data.dataset.manifest import RARE_ID, Manifest
from dmoe.names import clip, printable

MOST_NAMES = 8
LONGEST_NAME = 32


def notices(manifest: Manifest) -> list[str]:
    """Warns of splits without rows, splits with one label, and uninformative features. Empty for data to score."""
    return [] if "score" in manifest.splits else [*split_notices(manifest), *feature_notices(manifest)]


def facts(manifest: Manifest) -> list[str]:
    """How the train split was sampled and ordered, and the parts of crosses, one line each."""
    lines, made_by = [], manifest.made_by
    rows, share = made_by.get("train_rows"), made_by.get("negatives")
    if isinstance(rows, dict) and isinstance(share, float) and manifest.weighted_rate is not None:
        kept = f"{rows.get('kept'):,} of the {rows.get('read'):,} rows of train are kept, {share:g} of the negatives"
        lines.append(f"{kept}; weighted positive rate {manifest.weighted_rate:.4f}")
    if made_by.get("shuffle") is True:
        lines.append("train is in a global random order")
    for one in manifest.categorical:
        if one.identity and one.identity.cross:
            lines.append(printable(f"{clip(one.name, LONGEST_NAME)} is the cross {' x '.join(part.name for part in one.identity.cross)}"))
    return lines


def split_notices(manifest: Manifest) -> list[str]:
    lines = [f"split '{name}' has no rows" for name, split in manifest.splits.items() if not split.rows]
    for name, split in manifest.splits.items():
        if split.only_label:
            label = int(split.only_label == "positive")
            lines.append(f"all {split.rows:,} rows of {name} have label {label}; nothing can be learned or ranked by one label")
    return lines


def feature_notices(manifest: Manifest, names: Collection[str] | None = None) -> list[str]:
    """Warns of features (among `names`, if given) whose values are all missing, all the same, or all rare.

    Constant features are those that `made_by` names; a manifest of another program may name none.
    """
    shares = {one.name: one.missing_share for one in manifest.dense} | {one.name: one.missing_share for one in manifest.categorical}
    missing = [name for name, share in shares.items() if share == 1]
    rare = [one.name for one in manifest.categorical if one.cardinality == RARE_ID + 1 and one.missing_share < 1]
    said = manifest.made_by.get("constant")
    constant = [one for one in said if isinstance(one, str) and one not in missing + rare] if isinstance(said, list) else []
    kinds = {
        "no row has a value of": missing,
        "no token is frequent enough for an id of its own in": rare,
        "every row has the same value of": constant,
    }
    lines = []
    for what, found in kinds.items():
        if told := [one for one in found if names is None or one in names]:
            shown = ", ".join(printable(clip(one, LONGEST_NAME)) for one in told[:MOST_NAMES])
            rest = f" and {len(told) - MOST_NAMES:,} more" if len(told) > MOST_NAMES else ""
            lines.append(f"{what} {shown}{rest}; a model learns nothing from {'them' if len(told) > 1 else 'it'}")
    return lines
