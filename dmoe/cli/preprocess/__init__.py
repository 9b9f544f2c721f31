"""Turn raw click logs into a data set for training. Killed or interrupted, the same command continues where it was."""

COMMANDS = {
    "criteo": ("dmoe.cli.preprocess.criteo", "label, I1..I13, C1..C26: tab-separated, or CSV with a header"),
    "avazu": ("dmoe.cli.preprocess.avazu", "Avazu's train.csv: id, click, hour, C1, ..., C21"),
    "log": ("dmoe.cli.preprocess.log", "any delimited or parquet log, described by a schema file"),
}
