"""Checkpoints, which do not depend on the plan, the layout or the number of ranks.

A checkpoint is a folder of safetensors files and `index.json`, which is written last: a folder without it is no checkpoint. The keys are
logical tables (`C7/0`: feature C7, table set 0). A table is stored in pieces, rectangles of rows and columns. Nothing is unpickled.

`index`, `tensors`, `contents`, `of_run` and `inspect` do without torch; `save`, `writer` and `load` store and load a sharded model.
"""
