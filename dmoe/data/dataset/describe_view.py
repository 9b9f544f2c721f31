"""The view of a data set's description: its splits, features, skew and memory."""

from collections.abc import Callable

from dmoe.data.dataset.describe import OPTIMIZERS, Description, FeatureFacts, table_bytes
from dmoe.report.document import Bars, Bullets, Cell, Chart, Document, Figures, Heading, Note, Series, Table

DIMS = (8, 16, 32, 64, 128)
MOST_BARS = 60
"""Features in a chart; the table has all."""


def size(count: float) -> str:
    """`12.3 MB`, in powers of ten."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def percent(share: float | None) -> Cell:
    return Cell("-" if share is None else f"{share:.2%}", value=share)


def describe_document(description: Description) -> Document:
    """The view of a data set."""
    dense = [[name, percent(missing), transform] for name, transform, missing in description.dense]
    skew = (
        f"top k: share of rows of the k most frequent ids, by {description.skew_from}; effective: e to the entropy of the ids; a dim:"
        " float32 weights for each embedding dimension"
    )
    states = "; ".join(f"{name}: {what}" for name, what in OPTIMIZERS.items())
    memory = f"memory of all tables, one float32 embedding a feature, {description.ids:,} rows"
    return Document(
        f"{description.dataset}: {description.folder}",
        [
            Note(f"{description.folder}: {description.dataset}, {sum(split.rows for split in description.splits):,} rows", only="text"),
            Heading("Splits"),
            _splits(description),
            Bullets(description.notes),
            Heading("Days"),
            Table(["day", "rows", "label rate"], [[day, f"{n:,}", percent(p / n if n else None)] for day, n, p in description.days]),
            Heading("Pictures"),
            Figures([_cardinalities(description), _missing(description), _skew(description), _label_rates(description)]),
            Heading("Dense features"),
            Table(["dense", "missing", "is"], dense, words=(0, 2)),
            Heading("Categorical features"),
            Table(
                ["feature", "ids", "missing", "rare", "top 1", "top 10", "top 100", "effective", "a dim"], _features(description.features)
            ),
            Note(skew, "faint"),
            Heading("Memory of all tables"),
            Table(["embedding dim", *OPTIMIZERS], _memory(description.ids), memory),
            Note(states, "faint"),
            Heading("Made by"),
            Note(description.command, "code", "page"),
        ],
    )


def _splits(description: Description) -> Table:
    head = ["split", "rows", "label rate", "shards", "row groups", "on disk", "B a row"]
    rows = [
        [
            split.name,
            f"{split.rows:,}",
            percent(split.rate),
            f"{split.shards:,}",
            f"{split.row_groups:,}",
            size(split.bytes),
            f"{split.bytes / split.rows:.1f}" if split.rows else "-",
        ]
        for split in description.splits
    ]
    return Table(head, rows)


def _features(features: list[FeatureFacts]) -> list[list[str]]:
    """Name, ids, shares of rows, effective ids, and the bytes of the table's weights for each embedding dimension."""
    return [
        [
            feature.name,
            f"{feature.cardinality:,}",
            percent(feature.missing),
            percent(feature.rare),
            *(percent(feature.share_of_top(k)) for k in (1, 10, 100)),
            "-" if feature.effective is None else f"{feature.effective:,.1f}",
            size(feature.cardinality * 4),
        ]
        for feature in features
    ]


def _memory(ids: int) -> list[list[str]]:
    """For each dimension, the bytes of all tables under each optimizer."""
    return [[str(dim), *(size(count) for count in table_bytes(ids, dim).values())] for dim in DIMS]


def _cardinalities(description: Description) -> Bars:
    shown, which = _most(description.features, lambda feature: feature.cardinality)
    return Bars(f"Ids of {which}", "ids", [f.name for f in shown], [("ids", [float(f.cardinality) for f in shown])], log=True)


def _missing(description: Description) -> Bars:
    shown, which = _most(description.features, lambda feature: feature.missing + feature.rare)
    shares = [("missing", [100 * f.missing for f in shown]), ("rare", [100 * f.rare for f in shown])]
    return Bars(f"Missing and rare values of {which}", "% of rows", [f.name for f in shown], shares)


def _most(features: list[FeatureFacts], value: Callable[[FeatureFacts], float]) -> tuple[list[FeatureFacts], str]:
    """The features that a chart of bars has, and what they are: all, or of many those with the greatest values."""
    if len(features) <= MOST_BARS:
        return features, "each feature"
    return sorted(features, key=lambda one: -value(one))[:MOST_BARS], f"the {MOST_BARS} features with most, of {len(features):,}"


def _skew(description: Description) -> Chart:
    """The six features of the most ids: how few of them have how much of the rows."""
    largest = sorted((f for f in description.features if f.top), key=lambda f: -f.cardinality)[:6]
    lines = [Series(f.name, [k for k, _ in f.top or ()], [100 * share for _, share in f.top or ()]) for f in largest]
    return Chart("Skew of the largest features", "most frequent ids", "% of rows", lines, log_x=True)


def _label_rates(description: Description) -> Chart:
    """By day where days are known, else along the shards."""
    if days := description.days:
        line = Series("all rows", range(len(days)), [100 * positives / max(rows, 1) for _, rows, positives in days])
        return Chart("Label rate by day", "day", "% of rows", [line], x_names=[(at, name) for at, (name, _, _) in enumerate(days)])
    splits = [
        Series(split.name, range(len(split.rates)), [100 * rate for rate in split.rates]) for split in description.splits if split.rates
    ]
    return Chart("Label rate by shard", "shard", "% of rows", splits)
