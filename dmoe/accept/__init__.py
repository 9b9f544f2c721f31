"""Acceptance tests of a machine or a cluster: stages run the parts of dmoe on it, and compare the results with what they must be.

`stages` lists the stages, `conductor` runs them, `ranks` and `supervisor` manage their processes, `report` formats the findings. The file
of a stage has the code of the conductor and that of the ranks. Neither imports TorchRec before the stage runs, so `--level dense` needs
only PyTorch.
"""
