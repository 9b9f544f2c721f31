"""The commands of tools/plan.py, one a file: `add` says its arguments and returns its parser, `run` runs it and may return an exit code.

Heavy imports belong inside `run`: every file here is imported to print the help.
"""
