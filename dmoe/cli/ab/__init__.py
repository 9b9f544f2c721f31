"""Plan an online A/B test, assign its units to arms, and read its result."""

COMMANDS = {
    "assign": ("dmoe.cli.ab.assign", "show the arm of each unit of a split"),
    "plan": ("dmoe.cli.ab.plan", "compute how many rows, units and days a test needs"),
    "read": ("dmoe.cli.ab.read", "compute the result of a test: effect, interval, verdict, page"),
}
