"""The version, for those that `dmoe/__init__.py` imports."""

__version__ = "0.1.0"


def version_of(package: str) -> str | None:
    """The version of an installed package, or None."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None
