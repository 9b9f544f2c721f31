"""Turn raw click logs into a data set for training. If it is killed or interrupted, the same command continues."""

import os

# Arrow's own memory pool keeps freed buffers in addition to those of the C library: 43 MiB more at the peak for 2M rows of Criteo's form.
# The variable is read when pyarrow is imported.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")


COMMANDS = {
    "criteo": ("dmoe.cli.preprocess.criteo", "label, I1..I13, C1..C26: tab-separated, or CSV with a header"),
    "avazu": ("dmoe.cli.preprocess.avazu", "Avazu's train.csv: id, click, hour, C1, ..., C21"),
    "log": ("dmoe.cli.preprocess.log", "any delimited or parquet log, described by a schema file"),
}
