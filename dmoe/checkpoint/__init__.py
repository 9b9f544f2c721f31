"""Checkpoints that belong to the model, not to a plan, a layout or a number of ranks.

A checkpoint is a folder of safetensors files and `index.json`, which is written last: without it there is no checkpoint. Tables are
keyed by logical table (`C7/0`: feature C7, table set 0) in pieces, rectangles of rows and columns, that any rank can read its part
of. Nothing in it is unpickled.

`index` and `tensors` know the format and need neither torch nor torchrec, for tools that look at a checkpoint anywhere; `save`,
`writer` and `load` move a sharded model in and out.
"""
