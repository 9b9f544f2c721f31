"""The version, for those that `dmoe/__init__.py` imports."""

__version__ = "0.1.0"
