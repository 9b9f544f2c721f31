"""Formats numbers of bytes for messages and reports."""


def human(count: float) -> str:
    """Formats bytes as `1.5 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def left(count: float) -> str:
    """Formats free bytes as `1.5 GB`, and a negative number, for missing bytes, as `1.5 GB short`."""
    return human(count) if count >= 0 else f"{human(-count)} short"
