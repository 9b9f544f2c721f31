"""Sub-commands of tools/preprocess.py."""
