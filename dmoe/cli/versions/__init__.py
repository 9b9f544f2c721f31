"""The versions of a served model, by the pointer file that dmoe serve follows."""

COMMANDS = {
    "show": ("dmoe.cli.versions.show", "the current version and those before it"),
    "publish": ("dmoe.cli.versions.publish", "make a scorer the current version, once it has been tried out"),
    "rollback": ("dmoe.cli.versions.rollback", "go back to the version before"),
}
