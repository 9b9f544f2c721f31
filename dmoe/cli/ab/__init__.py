"""An online A/B test: who is in which arm, how large it has to be, and what it found."""

COMMANDS = {
    "assign": ("dmoe.cli.ab.assign", "which arm of a split each unit is in"),
}
