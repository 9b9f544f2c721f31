"""Make, show, check, compare, rehearse and calibrate sharding plans, without a GPU."""

COMMANDS = {
    "make": ("dmoe.cli.plan.make", "plan a model for a cluster, without the cluster"),
    "show": ("dmoe.cli.plan.show", "show the load of each rank, where each table is, and why"),
    "diff": ("dmoe.cli.plan.diff", "compare two plans: which data would move, and what is gained"),
    "check": ("dmoe.cli.plan.check", "compare a plan with limits, for CI: exit code 1 if a rank exceeds them"),
    "explain-failure": ("dmoe.cli.plan.explain_failure", "if no plan fits: the smallest changes with which one would, ranked"),
    "sweep": ("dmoe.cli.plan.sweep", "plan a grid of clusters, batch sizes, experts and layouts"),
    "rehearse": ("dmoe.cli.plan.rehearse", "train a few steps with a plan, shrunk to a few gloo ranks"),
    "calibrate": ("dmoe.cli.plan.calibrate", "measure a few steps, and compare bytes, memory and time with the prediction"),
}
