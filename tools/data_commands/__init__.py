"""The commands of tools/data.py, a file each: `add` makes the parser, `run` does it."""
