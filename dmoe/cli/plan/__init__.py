"""Make, show, check, compare, rehearse and calibrate sharding plans, without a GPU."""

COMMANDS = {
    "make": ("dmoe.cli.plan.make", "plan a model for a cluster that need not be there"),
    "show": ("dmoe.cli.plan.show", "what each rank holds and does, where each table lies, and why"),
    "diff": ("dmoe.cli.plan.diff", "what going from one plan to another moves, and what it gains"),
    "check": ("dmoe.cli.plan.check", "compare a plan with limits, for CI: exit code 1 names the ranks that exceed them"),
    "explain-failure": ("dmoe.cli.plan.explain_failure", "where no plan fits: the smallest changes that would make it fit, ranked"),
    "sweep": ("dmoe.cli.plan.sweep", "plan a grid of clusters, batch sizes, experts and layouts"),
    "rehearse": ("dmoe.cli.plan.rehearse", "run a cluster's plan, shrunk to a few gloo ranks, for a few steps"),
    "calibrate": ("dmoe.cli.plan.calibrate", "measure a few steps and compare bytes, memory and time with the prediction"),
}
