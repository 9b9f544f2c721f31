"""The command line: `dmoe COMMAND`, with one file for each command.

A command is a module with `add_arguments(parser)` and `run(arguments)`; a group of commands is a package with `COMMANDS`. `dmoe.cli.main`
imports only the command that is called, and a command imports torch only when it runs, so that `--help` is fast.
"""

COMMANDS = {
    "schema": ("dmoe.cli.schema", "propose a schema for a raw log, or show a shipped schema"),
    "preprocess": ("dmoe.cli.preprocess", "turn raw click logs into a data set"),
    "describe": ("dmoe.cli.data.describe", "rows, labels, ids, skew and memory of a data set"),
    "data": ("dmoe.cli.data", "describe or export a data set"),
    "synthesize": ("dmoe.cli.synthesize", "write a raw click log with a planted truth"),
    "plan": ("dmoe.cli.plan", "make, read, check and compare sharding plans, without a GPU"),
    "cost": ("dmoe.cli.cost", "parameters, bytes and FLOPs of configs before training"),
    "train": ("dmoe.cli.train", "train, on one process or under torchrun"),
    "online": ("dmoe.cli.online", "follow a log that grows: test, train, watch and publish, window by window"),
    "evaluate": ("dmoe.cli.evaluate", "evaluate the best checkpoint of a run"),
    "report": ("dmoe.cli.report", "tables, pages and paired tests of finished runs"),
    "checkpoint": ("dmoe.cli.checkpoint", "inspect, verify, export or compare checkpoints, without torch"),
    "export": ("dmoe.cli.export", "turn a run's checkpoint into a scorer"),
    "score": ("dmoe.cli.score", "score a log with an exported scorer"),
    "serve": ("dmoe.cli.serve", "serve an exported scorer over HTTP: KServe v2, JSON rows, Arrow"),
    "ab": ("dmoe.cli.ab", "an online A/B test of scorers: assign its units, plan its size, read its result"),
    "versions": ("dmoe.cli.versions", "publish a served model's next version, or go back"),
    "deploy": ("dmoe.cli.deploy", "print the manifests that run dmoe serve on Kubernetes"),
    "doctor": ("dmoe.cli.doctor", "check this machine, and name the commands that repair it"),
    "accept": ("dmoe.cli.accept", "test dmoe on this machine or cluster, stage by stage, with a report"),
    "demo": ("dmoe.cli.demo", "from a raw log to a trained and evaluated model, step by step"),
    "completion": ("dmoe.cli.completion", "print the completion script of a shell"),
}
"""Name of a command -> (its module or package, its one-line help)."""
