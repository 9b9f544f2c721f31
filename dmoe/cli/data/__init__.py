"""Describe or export a data set."""

COMMANDS = {
    "describe": ("dmoe.cli.data.describe", "rows, labels, ids, skew and memory of a data set"),
    "export": ("dmoe.cli.data.export", "write a data set as torchrec's npy files, or as one npy file for each column"),
}
