"""Makes a small log, a run with a few training steps on it, and its scorer, for examples and tests of serving."""

import atexit
import random
import shutil
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import yaml

from dmoe.config.config import parse_config
from dmoe.data.dataset.dataset import Dataset
from dmoe.data.dataset.manifest import save_manifest
from dmoe.data.prepare.options import Options
from dmoe.data.prepare.pipeline import preprocess
from dmoe.serve.export.export import export
from dmoe.train.trainer import Trainer

TAGS = '{name: tags, separator: "|", pooling: mean}, '
SCHEMA = f"""
label: click
dense: [{{name: price, transform: log1p}}]
categorical: [site, user, {TAGS}{{name: price_bucket, column: price, bucket: log2}}]
"""
MODEL = {"embedding": {"dim": 8}, "experts": ["crossnet", {"kind": "mlp", "hidden": [16]}], "expert_dim": 8, "tower": {"hidden": [8]}}


def small_scorer(
    folder: str | None = None,
    steps: int = 10,
    seed: int = 0,
    tags: bool = True,
    settings: Sequence[str] = (),
    rows: str = "fp32",
    time: str = "",
) -> str:
    """Makes a scorer, with `log.csv`, `data` and `run` beside it; returns the folder of the scorer.

    Args:
        folder: parent folder; if None, a temporary one that is removed when the process ends.
        steps: number of training steps.
        seed: seed of the model; another seed gives another scorer for the same log.
        tags: whether the model reads the multi-valued column.
        settings: overrides of the config, as `key=value`.
        rows: number format of the table rows.
        time: format of a time column `at`, whose hour is a feature; empty for no such column.
    """
    place = Path(folder or tempfile.mkdtemp(prefix="dmoe-scorer-"))
    if not folder:
        atexit.register(shutil.rmtree, place, ignore_errors=True)
    place.mkdir(parents=True, exist_ok=True)
    data, run, scorer = str(place / "data"), place / "run", str(place / "scorer")
    write_log(place / "log.csv", time=time)
    schema = yaml.safe_load(SCHEMA if tags else SCHEMA.replace(TAGS, ""))
    if time:
        schema["time"] = {"column": "at", "format": time}
        schema["categorical"].append({"name": "hour", "part": "hour"})
    (place / "schema.yaml").write_text(yaml.safe_dump(schema))
    preprocess(Options([str(place / "log.csv")], data, schema=str(place / "schema.yaml"), min_count=2, workers=1))
    tree = {"model": MODEL, "data": {"path": data, "prefetch": 0}, "train": {"batch_size": 64, "seed": seed}}
    config, dataset = parse_config(yaml.safe_dump(tree), "small_scorer", list(settings)), Dataset(data)
    trainer = Trainer(config, dataset.manifest)
    for _ in trainer.fit(islice(dataset.batches("train", batch_size=64), steps)):
        pass
    trainer.save(str(run / "checkpoints" / f"step-{trainer.progress.step:09d}"))
    (run / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    save_manifest(str(run), dataset.manifest)
    export(str(run), scorer, rows)
    return scorer


def write_log(path: Path, rows: int = 1000, seed: int = 0, time: str = "") -> None:
    """Writes a log whose clicks depend on the site; with `time`, it has a column `at` in this format, one minute apart."""
    draw = random.Random(seed)
    lines = ["click,site,user,price,tags" + ",at" * bool(time)]
    for row in range(rows):
        site = draw.randrange(8)
        tags = "|".join(f"t{draw.randrange(9)}" for _ in range(draw.randrange(4)))
        price = "" if draw.random() < 0.1 else f"{draw.lognormvariate(1, 1):.2f}"
        line = f"{int(draw.random() < (0.6 if site < 4 else 0.1))},s{site},u{draw.randrange(40)},{price},{tags}"
        at = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(minutes=row)
        lines.append(line + (f",{at.timestamp():.0f}" if time == "unix" else f",{at.strftime(time)}") * bool(time))
    path.write_text("\n".join(lines) + "\n")
