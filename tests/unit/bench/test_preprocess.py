"""The table of tools.bench.preprocess."""

from tools.bench.preprocess import line
from tools.bench.usage import Usage


def test_ratios_are_medians_over_rounds_and_what_misses_its_target_is_bold():
    own = [Usage(wall, 8.0, peak, "") for wall, peak in ((6.0, 690.0), (9.0, 710.0), (5.0, 600.0))]
    other = [Usage(10.0, cpu, 1000.0, "") for cpu in (10.0, 8.0, 16.0)]
    cells = [cell.strip() for cell in line("avazu", 4_000_000, 604_000_000, own, other).strip("|").split("|")]
    assert cells[1:] == [
        "4,000,000",
        "0.60 GB",
        "6.0, 10.0",
        "0.60 (0.60)",
        "8.0, 10.0",
        "**0.80** (0.75)",
        "**710** (700), 1,000",
    ]
