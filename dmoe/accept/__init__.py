"""Acceptance of a machine or a cluster: stages that run dmoe's own parts on it and compare them with what they promise.

`stages` lists them, `conductor` runs them, `ranks` keeps the processes that they run in, `page` and `words` tell how they went. A stage's
file holds what the conductor does and what every rank does; neither imports TorchRec before it runs, so that `--level dense` needs
PyTorch alone.
"""
