"""Turn raw click logs into a data set for training. Killed or interrupted, the same command continues where it was."""

import os

# Arrow's own pool keeps freed buffers beside the C library's: 43 MiB at the peak of 2M rows of Criteo's form. Read when pyarrow starts.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")


COMMANDS = {
    "criteo": ("dmoe.cli.preprocess.criteo", "label, I1..I13, C1..C26: tab-separated, or CSV with a header"),
    "avazu": ("dmoe.cli.preprocess.avazu", "Avazu's train.csv: id, click, hour, C1, ..., C21"),
    "log": ("dmoe.cli.preprocess.log", "any delimited or parquet log, described by a schema file"),
}
