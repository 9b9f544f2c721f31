"""Export of a checkpoint, and scoring with what was exported: no sharding, no TorchRec."""
