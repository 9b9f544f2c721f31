"""Manage the versions of a served model, in the pointer file that dmoe serve follows."""

COMMANDS = {
    "show": ("dmoe.cli.versions.show", "show the current version and earlier ones"),
    "publish": ("dmoe.cli.versions.publish", "test a scorer, and make it the current version"),
    "rollback": ("dmoe.cli.versions.rollback", "go back to an earlier version"),
}
