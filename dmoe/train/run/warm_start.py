"""A run that begins from an earlier one's checkpoint, whose tables may have grown since: later days keep the ids and append new ones."""

from collections.abc import Sequence
from pathlib import Path

from dmoe.checkpoint.index import INDEX, read_index
from dmoe.checkpoint.load import load_checkpoint
from dmoe.data.dataset.manifest import FILE, Manifest, load_manifest
from dmoe.distributed import broadcast_object, rank
from dmoe.errors import UserError
from dmoe.paths import PATHS, inside, join
from dmoe.train.run.run_dir import SCHEMA, RunDir, problem_of
from dmoe.train.session import Session


def begin_from(session: Session, path: str) -> tuple[int, str]:
    """Loads the weights and the optimisers' states; rows that the checkpoint's tables lack keep their initial weights and empty states.

    Every rank has to call it. Step, epoch, position in the data, schedule and best AUC are not taken: the run is a new one.

    Args:
        path: a checkpoint, or a run, whose best checkpoint is taken.

    Returns:
        The steps that led to these weights, and a line that says what was loaded.

    Raises:
        UserError: damaged, of other features, dims or optimisers, of larger tables, or of other ids.
    """
    folder, problem = broadcast_object(_look(session, path) if rank() == 0 else None)
    if problem := problem or problem_of(folder):
        raise UserError(f"train.init_from: {problem}")
    try:
        kept = load_checkpoint(folder, session.sharded, session.tables, session.dense, session.optimizers, grown=True)
    except UserError as error:
        raise UserError(f"train.init_from: {error}") from None
    there = read_index(folder).tables
    new = {table.feature: table.rows - there[table.logical_name(table.sections[0])][0] for table in session.tables}
    grown = sum(rows > 0 for rows in new.values())
    line = f"begins from {folder}: {sum(new.values()):,} new ids in {grown} of {len(new)} features"
    return kept["step"] + kept.get("steps_before", 0), line


def _look(session: Session, path: str) -> tuple[str, str | None]:
    """The checkpoint's folder, and what speaks against it."""
    try:
        folder, run = (path, _run_of(path)) if PATHS.exists(join(path, INDEX)) else (_best_of(path), path)
        # A checkpoint that was taken out of its run has no schema beside it: shapes alone are compared then.
        if PATHS.exists(inside(run, SCHEMA)):
            names = [feature.name for feature in session.blueprint.features]
            check_grown(load_manifest(run), session.manifest, session.config.data.path, names)
    except UserError as error:
        return "", str(error)
    return folder, None


def _run_of(checkpoint: str) -> str:
    return checkpoint.rstrip("/").rsplit("/", 2)[0] if "://" in checkpoint else str(Path(checkpoint).resolve().parent.parent)


def _best_of(path: str) -> str:
    run = RunDir(path)
    steps = run.checkpoints()
    if not steps:
        raise UserError(f"{path}: neither a checkpoint (no {INDEX}) nor a run with one (no checkpoints/step-*/{INDEX})")
    best = read_index(run.checkpoint(steps[-1])).progress.get("best_step")
    return run.checkpoint(best if best in steps else steps[-1])


def check_grown(trained_on: Manifest, manifest: Manifest, folder: str, names: Sequence[str]) -> None:
    """Whether a model of the one data set goes on with the other: the same columns, and every old id still the same token's.

    Args:
        trained_on: what the model was trained on.
        manifest: of the data set in `folder`.
        names: the categorical features that the model uses.

    Raises:
        UserError: names what differs.
    """
    where, used = join(folder, FILE), set(names)
    for kind, before, now in (
        ("numeric", [one.name for one in trained_on.dense], [one.name for one in manifest.dense]),
        ("categorical", [one.name for one in trained_on.categorical if one.name in used], list(names)),
    ):
        if before != now:
            there, here = next(pair for pair in zip([*before, "none"], [*now, "none"], strict=False) if pair[0] != pair[1])
            raise UserError(f"{where}: {kind} feature {here} stands where the model was trained with {there}; data of other columns")
    old_sizes = {one.name: one for one in trained_on.categorical}
    for feature in manifest.categorical:
        old = old_sizes.get(feature.name)
        if old is None or feature.name not in used:
            continue
        if (old.kind, old.pooling) != (feature.kind, feature.pooling):
            kinds = [f"{one.kind}, pooling {one.pooling}" for one in (feature, old)]
            raise UserError(f"{where}: feature {feature.name} is {kinds[0]}; the model was trained with {kinds[1]}")
        if feature.cardinality < old.cardinality:
            raise UserError(
                f"{where}: feature {feature.name} has {feature.cardinality:,} ids, the model was trained with {old.cardinality:,}; tables"
                " can grow but not shrink: preprocess with --vocabulary of its data set and --new-tokens append"
            )
        if feature.cardinality != old.cardinality and "hash" in (trained_on.made_by.get("ids"), manifest.made_by.get("ids")):
            raise UserError(f"{where}: feature {feature.name} has hashed ids, which another --hash-size changes all; keep the old one")
    _check_tokens(trained_on, manifest, folder)


def _check_tokens(trained_on: Manifest, manifest: Manifest, folder: str) -> None:
    """Whether the new vocabularies, cut to the old sizes, are the old ones; told where both data sets keep a checksum of them."""
    expected = trained_on.made_by.get("vocabulary_sha256")
    if expected is None or "vocabulary_sha256" not in manifest.made_by or expected == manifest.made_by["vocabulary_sha256"]:
        return
    from dmoe.data.vocabulary import RARE_ID, Vocabulary, digest, read_kept

    own = {one.name: one.cardinality - RARE_ID - 1 for one in trained_on.categorical}
    kept = read_kept(folder, manifest)
    cut = [Vocabulary(one.name, one.tokens[: own[one.name]], one.counts[: own[one.name]]) for one in kept if one.name in own]
    if digest(cut) != expected:
        raise UserError(
            f"{join(folder, FILE)}: its ids are not those that the model was trained with; preprocess with --vocabulary of that data set"
            " and --new-tokens append"
        )
