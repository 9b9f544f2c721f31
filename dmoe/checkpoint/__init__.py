"""Checkpoints, which do not depend on the plan, the layout or the number of ranks.

A checkpoint is a folder of safetensors files and `index.json`, which is written last: a folder without it is no checkpoint. The keys are
logical tables (`C7/0`: feature C7, table set 0). A table is stored in pieces, rectangles of rows and columns, and each rank reads the parts
that it needs. Nothing is unpickled.

`index` and `tensors` implement the format without torch or torchrec, for tools that inspect checkpoints. `save`, `writer` and `load` store
and load a sharded model.
"""
