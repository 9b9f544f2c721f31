"""Teachers of a run: trained models, frozen and in evaluation mode, that give every batch of its training their logits.

A teacher is sharded over the ranks by a plan of its own, so that it may be as large as what is trained, on any number of ranks.

Shapes: B rows of this rank.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

import torch

from dmoe.checkpoint.index import INDEX
from dmoe.checkpoint.load import check_fits, load_checkpoint
from dmoe.checkpoint.of_run import checkpoint_of
from dmoe.config.config import Config, load_config
from dmoe.config.sections import OptimizerConfig, ShardingConfig, TableOptimizerConfig
from dmoe.data.dataset.batch import Batch
from dmoe.data.dataset.manifest import load_manifest
from dmoe.distributed import on_rank_0
from dmoe.errors import UserError
from dmoe.json_text import format_json, parse_json
from dmoe.model.budget.cost import cost_of
from dmoe.model.build import make_blueprint, outline_of
from dmoe.storage.paths import PATHS, inside, join, read_bounded, write_text
from dmoe.train.run.run_dir import RunDir, problem_of
from dmoe.train.run.run_inputs import CONFIG, check_same_ids
from dmoe.train.session import Session, open_session

WITHOUT = ["distill.teachers=[]", "supervision.mixture_weight=1.0"]
"""Overrides by which a config trains without its teachers."""
MAX_BYTES = 1 << 20
FILE = "teachers.json"
"""In a run: the checkpoint of each of its teachers, and the digest of that checkpoint's index."""


@dataclass(frozen=True)
class Source:
    """A checkpoint and the run that it is of. `given` is what the config calls it, `digest` its index's, which names every file's."""

    given: str
    folder: str
    run: str
    digest: str


class Teachers:
    """The teachers of a training. All ranks must make the same calls in the same order.

    Args:
        student: the model that is trained. Teachers score its batches.
        total: number of steps of the whole training. Each teacher teaches an equal part of them, in order.

    Raises:
        UserError: on all ranks: a teacher is not there, is damaged, or reads other features or ids than the student.
    """

    def __init__(self, student: Session, total: int) -> None:
        self.student, self.total = student, total
        self.sources: list[Source] = []
        for path in student.config.distill.teachers:
            try:
                source = on_rank_0(partial(_look, student, path))
                if problem := problem_of(source.folder):
                    raise UserError(problem)
            except UserError as error:
                raise UserError(f"distill.teachers: {error}") from None
            self.sources.append(source)
        self._open: tuple[Source, Session] | None = None

    def source(self, step: int) -> Source:
        """The teacher of a step; steps count from 0."""
        return self.sources[min(step * len(self.sources) // max(self.total, 1), len(self.sources) - 1)]

    def taught(self, batches: Iterable[Batch], step: int) -> Iterator[Batch]:
        """The student's batches on its device, with the teacher's logits.

        Args:
            batches: with ids as the data set has them, before `lookups`.
            step: of the first one.
        """
        for number, batch in enumerate(batches, step):
            here = batch.to(self.student.device)
            yield self.student.on_device(replace(here, teacher_B=self.logits(here, number)))

    def logits(self, batch: Batch, step: int) -> torch.Tensor:
        """[B] float32, of the step's teacher."""
        teacher = self._session(self.source(step))
        here, model = teacher.on_device(batch), teacher.task.model
        with torch.no_grad():
            return model.mixture.logits(here.dense_BD, model.embedding(here.sparse))

    def _session(self, source: Source) -> Session:
        """Checkpoints of one run share the memory of one model."""
        if self._open is None or self._open[0].run != source.run:
            self._open = None
            self._open = source, open_session(_config(source.run), load_manifest(source.run), self.student.device)
        elif self._open[0] != source:
            self._open = source, self._open[1]
        else:
            return self._open[1]
        session = self._open[1]
        load_checkpoint(source.folder, session.sharded, session.tables, session.dense, None)
        session.sharded.eval()
        return session


def held_bytes(config: Config) -> int:
    """Bytes of the largest teacher's tables over all ranks; only one teacher is in memory at a time.

    A damaged teacher counts 0 here, because `Teachers` refuses it.
    """
    found = [0]
    for path in config.distill.teachers if config.distill.on else ():
        with suppress(UserError):
            run = checkpoint_of(path)[1]
            found.append(cost_of(_config(run), load_manifest(run)).embedding_bytes)
    return max(found)


def note_teachers(run: RunDir, sources: Sequence[Source], begun: bool) -> None:
    """Records the teachers of a new run. A resumed run (`begun`) must have the teachers it started with, since a teacher's run may have
    been trained further or replaced in the meantime.

    Raises:
        UserError: on all ranks, a teacher of the same checkpoint has other weights, or a run's best checkpoint is another one.
    """
    on_rank_0(partial(_note, run, {one.given: [one.folder, one.digest] for one in sources}, begun))


def _note(run: RunDir, now: dict[str, list[str]], begun: bool) -> None:
    path = run.file(FILE)
    if begun and PATHS.exists(path):
        try:
            before = dict(parse_json(read_bounded(path, MAX_BYTES, "run's list of teachers")))
        except (ValueError, TypeError) as error:
            raise UserError(f"{path}: damaged: {error}") from None
        for given, (folder, digest) in now.items():
            if before.get(given, [folder, digest]) != [folder, digest]:
                raise UserError(
                    f"distill.teachers: {given}: {folder} is not the checkpoint that the run began with, which {path} names; put that one"
                    " back, name it itself, or train anew"
                )
    write_text(path, format_json(now, indent=1) + "\n")


def _look(student: Session, path: str) -> Source:
    """Rank 0's look at a teacher before anything is built."""
    folder, run = checkpoint_of(path)
    check_same_ids(run, student.config.data, student.manifest)
    config, manifest = _config(run), load_manifest(run)
    blueprint = make_blueprint(config, manifest)
    check_fits(folder, blueprint.tables, outline_of(config, blueprint))
    with PATHS.open(join(folder, INDEX), "rb") as file:
        return Source(path, folder, run, hashlib.sha256(file.read()).hexdigest())


def _config(run: str) -> Config:
    """The run's model without what its training alone needed: a plan for its number of ranks, its optimizers and their states."""
    config = load_config(inside(run, CONFIG))
    optimizer = OptimizerConfig(tables=TableOptimizerConfig(kind="sgd"))
    train = config.train.model_copy(update={"compile": False})
    return config.model_copy(update={"sharding": ShardingConfig(), "optimizer": optimizer, "train": train})
