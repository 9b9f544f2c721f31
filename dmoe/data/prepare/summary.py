"""The summary that preprocessing prints at the end."""

import shlex

from dmoe.config.shipped import CONFIGS
from dmoe.data.dataset.manifest import Manifest, load_manifest
from dmoe.data.dataset.notices import facts, notices
from dmoe.data.prepare.pipeline import Result
from dmoe.data.progress import duration, peak_memory_mb
from dmoe.data.skew import shares_of, skew_lines
from dmoe.names import clip


def _splits(manifest: Manifest) -> list[str]:
    lines = []
    for name, split in manifest.splits.items():
        rate = f", positive rate {split.positives / split.rows:.4f}" if split.rows and split.labelled else ""
        rate = rate or ", no labels" * (not split.labelled)
        lines.append(f"  {name:<11}{split.rows:>14,} rows in {len(split.shards)} shard{'s' * (len(split.shards) != 1)}{rate}")
    lines += [f"  {one}" for one in facts(manifest)]
    lines += [f"  warning: {one}" for one in notices(manifest)]
    return lines


def _cardinalities(manifest: Manifest) -> list[str]:
    """Feature and cardinality, such as `C1 1,460`, six on a line."""
    shown = [f"{clip(feature.name, 32)} {feature.cardinality:,}" for feature in manifest.categorical]
    return ["  " + "  ".join(f"{one:<14}" for one in shown[at : at + 6]).rstrip() for at in range(0, len(shown), 6)]


def _collisions(result: Result) -> list[str]:
    """Collision rate of hashed ids over all features, and of the three worst features."""
    if not result.collisions:
        return []
    tokens, ids = (sum(getattr(one, what) for one in result.collisions.values()) for what in ("tokens", "ids"))
    worst = sorted(result.collisions.items(), key=lambda item: -item[1].rate)[:3]
    shown = ", ".join(f"{name} {one.rate:.2%}" for name, one in worst)
    return [f"  hashed ids: {tokens:,} distinct tokens got {ids:,} ids, collision rate {1 - ids / max(tokens, 1):.2%} (most: {shown})"]


def summarize(result: Result, output: str, vocabulary: str | None = None) -> str:
    """The summary as text: rows, cardinalities, malformed lines, speed, and the next command to run.

    Args:
        vocabulary: the data set whose ids were reused. Its shares of unknown and missing values are compared with the new ones.
    """
    manifest = result.manifest
    lines = [f"{output}: made by this command before, nothing to do" if result.already_there else f"{output}: done"]
    lines += _splits(manifest)
    lines += [f"  {len(manifest.dense)} dense features; ids of {len(manifest.categorical)} categorical ones:", *_cardinalities(manifest)]
    lines += _collisions(result)
    if result.appended:
        lines.append(f"  {result.appended:,} new tokens got ids behind the kept ones")
    if not result.already_there:
        bad = sum(result.bad_lines.values())
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in sorted(result.bad_lines.items()))
        lines.append(f"  bad lines: {bad:,} of {result.lines:,}" + (f" ({kinds}), kept in {output}/rejects" if bad else ""))
        stages = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in result.stages.items())
        speed = f"{result.lines / result.seconds:,.0f} rows/s, {result.size / result.seconds / 1e6:,.0f} MB/s"
        lines.append(f"  {duration(result.seconds)} ({stages}), {speed}, peak memory {peak_memory_mb():,.0f} MB")
    if vocabulary:
        lines += skew_lines(shares_of(load_manifest(vocabulary)), manifest, f"  {output}")
    if "score" in manifest.splits:
        lines.append(f"next: dmoe score --scorer D --data {shlex.quote(output)} --split score --output scores.parquet")
        return "\n".join(lines)
    lines.append(f"next: dmoe train --config {_config_for(manifest.dataset)} --set {shlex.quote(f'data.path={output}')} run.dir=runs/first")
    return "\n".join(lines)


def _config_for(dataset: str) -> str:
    """The shipped config to start with: the one for this log, preferably for a laptop; else `demo`."""
    found = [name for name in (f"{dataset}_laptop", dataset) if (CONFIGS / f"{name}.yaml").is_file()]
    return found[0] if found else "demo"
