"""Bytes for people."""


def human(count: float) -> str:
    """Bytes as 1.5 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def left(count: float) -> str:
    """Bytes that are free as 1.5 GB, and those that are missing, where there are fewer than none, as 1.5 GB short."""
    return human(count) if count >= 0 else f"{human(-count)} short"
