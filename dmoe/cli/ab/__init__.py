"""An online A/B test: who is in which arm, how large it has to be, and what it found."""

COMMANDS = {
    "assign": ("dmoe.cli.ab.assign", "which arm of a split each unit is in"),
    "plan": ("dmoe.cli.ab.plan", "how many rows, units and days a test needs"),
    "read": ("dmoe.cli.ab.read", "what a test says: effect, interval, verdict, page"),
}
