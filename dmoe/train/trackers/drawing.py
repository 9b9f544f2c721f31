"""The picture that trackers keep of a validation."""

from typing import Any


def correlations(matrix: list[list[float]]) -> Any:
    """The CEC matrix, [M, M] in 0..1, as a heat-map (a matplotlib Figure)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    size = 2 + 0.5 * len(matrix)
    figure = Figure(figsize=(size + 0.6, size))
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    picture = axes.imshow(matrix, vmin=0, vmax=1, cmap="viridis")
    for row, line in enumerate(matrix):
        for column, value in enumerate(line):
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color="white" if value < 0.6 else "black", fontsize=8)
    ticks = range(len(matrix))
    axes.set(title="mean |r| between experts", xticks=list(ticks), yticks=list(ticks), xlabel="expert", ylabel="expert")
    figure.colorbar(picture)
    return figure
