"""The models of a server: a single one, or those of the arms of a split and its shadow."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dmoe.serve.ab.split import OUTSIDE, Assigner, Split, read_split
from dmoe.serve.ab.unit import unit_of
from dmoe.serve.server.batcher import Batcher
from dmoe.serve.server.options import ServeOptions
from dmoe.serve.server.scratch import Scratch
from dmoe.serve.server.versions import Version, Versions, first_version
from dmoe.storage.paths import PATHS

VOCABULARY = "inputs/vocabulary/"


@dataclass(frozen=True)
class Model:
    """The versions of a scorer, and the batcher of its requests."""

    versions: Versions
    batcher: Batcher


@dataclass(frozen=True)
class Chosen:
    """The version and batcher that answer a request. `arm` is None without a split, and empty for a unit in no arm; `unit` may be empty."""

    version: Version
    batcher: Batcher
    arm: str | None = None
    unit: str = ""


class Arms:
    """Chooses the model that answers a request.

    Args:
        scored: called with the numbers of rows and requests of each batch that is answered.
        told: called with (path of the model, event, version or folder, message), see `Versions`.

    Raises:
        UserError: the split or a model is wrong.
    """

    def __init__(self, options: ServeOptions, scored: Callable[[int, int], None], told: Callable[[str, str, str, str], None]) -> None:
        self.options, self._scored, self._told = options, scored, told
        self.split = _split_of(options)
        self._by_path: dict[str, Model] = {}
        self.shadow: Model | None = None
        if self.split is None:
            self.control = self._model(options.model, f"--model {options.model}")
            return
        of_arm, shadow = _asked(options.split, self.split)
        self.of_arm = {name: self._model(*asked) for name, asked in of_arm.items()}
        self.control, self.assigner = self.of_arm[self.split.control], Assigner(self.split)
        if self.split.shadow and shadow:
            # The shadow has its own queue, so that it does not delay answers.
            self.shadow = self._model(*shadow, self.split.shadow.queue_rows)

    def _model(self, path: str, asked_by: str, queue_rows: int = 0) -> Model:
        key = f"{path}\0shadow" if queue_rows else path
        if key not in self._by_path:
            versions = Versions(path, lambda *event: self._told(path, *event), asked_by, self.options.engine, Scratch(self.options.scratch))
            o = self.options
            scored = (lambda rows, requests: None) if queue_rows else self._scored
            self._by_path[key] = Model(versions, Batcher(o.batch_rows, o.batch_us / 1e6, queue_rows or o.queue_rows, scored))
        return self._by_path[key]

    @property
    def models(self) -> list[Model]:
        """All models, each once."""
        return list(self._by_path.values())

    @property
    def answering(self) -> list[str]:
        """The names of the current versions, without that of the shadow."""
        models = [self.control] if self.split is None else self.of_arm.values()
        return sorted({model.versions.current.name for model in models})

    @property
    def shadow_columns(self) -> tuple[str, ...]:
        """The columns of raw rows that the shadow reads."""
        return self.shadow.versions.current.columns if self.shadow else ()

    @property
    def same_ids(self) -> bool:
        """Whether ids have the same meaning in all models: their features, cardinalities and vocabularies are equal."""
        abouts = [model.versions.current.scorer.about for model in self.models]
        kept = [{name: digest for name, digest in about.files.items() if name.startswith(VOCABULARY)} for about in abouts]
        return all((about.schema_hash, files) == (abouts[0].schema_hash, kept[0]) for about, files in zip(abouts, kept, strict=True))

    def choose(self, column: Callable[[str], Sequence[Any]], headers: Mapping[str, str], fields: Mapping[str, Any]) -> Chosen:
        """Chooses the model that answers a request; see `unit_of` for the arguments.

        Raises:
            NoUnit: the split needs a unit, but the request has none, several, or an invalid one.
        """
        if self.split is None:
            return Chosen(self.control.versions.current, self.control.batcher)
        unit = unit_of(self.split, column, headers, fields)
        arm = self.assigner.arms_of([unit])[0] if unit else OUTSIDE
        model = self.of_arm[arm] if arm else self.control
        return Chosen(model.versions.current, model.batcher, arm, unit)

    def follow(self) -> None:
        """Follows every model's pointer file, until `stop`."""
        for model in self.models:
            model.versions.follow(self.options.follow_seconds)

    def stop(self) -> None:
        for model in self.models:
            model.versions.stop()


def check(options: ServeOptions) -> dict[str, str]:
    """Loads each model once, to find errors early; returns path -> `Version.told`.

    Raises:
        UserError: the split or a model is wrong.
    """
    models = [(options.model, f"--model {options.model}")]
    if split := _split_of(options):
        of_arm, shadow = _asked(options.split, split)
        models = [*of_arm.values(), *([shadow] if shadow else [])]
        PATHS.mkdirs(split.exposures.folder)
    found = {}
    for path, asked_by in dict(models).items():
        version = first_version(path, asked_by, options.engine)
        found[path] = version.told
        version.remove()
    return found


def _split_of(options: ServeOptions) -> Split | None:
    return read_split(options.split, f"--split {options.split}") if options.split else None


def _asked(where: str, split: Split) -> tuple[dict[str, tuple[str, str]], tuple[str, str] | None]:
    """The paths of the scorers of the arms and of the shadow, each with the start of error messages about it."""
    of_arm = {name: (arm.scorer, f"{where}: arms.{name}.scorer {arm.scorer}") for name, arm in split.arms.items()}
    return of_arm, (split.shadow.scorer, f"{where}: shadow.scorer {split.shadow.scorer}") if split.shadow else None
