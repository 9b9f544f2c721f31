"""Print the cost of models before they are trained: parameters, bytes, FLOPs, memory, inference.

dmoe cost --data data/criteo configs/criteo_*.yaml
dmoe cost --data data/criteo --ladder configs/ladder_demo.yaml
dmoe cost --data data/criteo --match criteo_dmoe criteo_hetero_se --output control.yaml
"""

import argparse
from typing import TYPE_CHECKING

from dmoe.errors import UserError
from dmoe.names import show

if TYPE_CHECKING:
    from dmoe.config.config import Config
    from dmoe.data.dataset.manifest import Manifest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", nargs="*", help="configs, YAML files")
    parser.add_argument("--ladder", help="a ladder file: print the cost of all its variants")
    parser.add_argument(
        "--match",
        metavar="TARGET",
        help="find the dim and widths with which the config has as many parameters and FLOPs as the config TARGET",
    )
    parser.add_argument("--tolerance", type=float, default=0.02, help="with --match: relative difference that counts as equal (0.02)")
    parser.add_argument("--output", help="with --match: the config file to write")
    parser.add_argument("--data", required=True, help="the data set, for the sizes of the tables")
    parser.add_argument("--ranks", type=int, default=1, help="number of ranks over which the tables are sharded (1)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a value of every config; repeatable")


def run(arguments: argparse.Namespace) -> None:
    if not arguments.config and not arguments.ladder:
        raise UserError("name a config, or --ladder")
    if arguments.ranks < 1:
        raise UserError(f"--ranks {arguments.ranks}: expected at least one")
    if arguments.match and (len(arguments.config) != 1 or arguments.ladder):
        raise UserError("--match: name one config to change, and no --ladder")
    if not 0 < arguments.tolerance < 1:
        raise UserError(f"--tolerance {arguments.tolerance:g}: expected a share above 0 and below 1")
    from dmoe.config.config import load_config, setting
    from dmoe.data.dataset.manifest import load_manifest
    from dmoe.model.budget.cost import cost_of, cost_rows
    from dmoe.report.document import in_columns
    from dmoe.report.ladder.spec import load_spec, resolve

    overrides = [*arguments.set, setting("data.path", arguments.data)]
    configs = {path: load_config(path, overrides) for path in arguments.config}
    if arguments.ladder:
        spec = load_spec(arguments.ladder)
        configs |= {spec.label(name): resolve(spec, arguments.ladder, name, 0, overrides, "none") for name in spec.variants}
    manifest = load_manifest(arguments.data)
    if arguments.match:
        configs = _matched(arguments, load_config(arguments.match, overrides), configs, manifest)
    costs = {name: cost_of(config, manifest) for name, config in configs.items()}
    batch_size = next(iter(configs.values())).train.batch_size
    head, *rows = cost_rows(costs, batch_size, arguments.ranks)
    show("\n".join(in_columns(head, rows, rule=True, width=10_000)))
    print(
        f"\nGlobal batch {batch_size:,}. FLOPs are those of the forward pass of a row; a training step needs about three times as many."
        " Memory is that of the tables, their optimizer state, four copies of the dense part and the activations, spread evenly over the"
        " ranks; torch and TorchRec need about 0.7 GB more."
    )


def _matched(arguments: argparse.Namespace, target: "Config", configs: "dict[str, Config]", manifest: "Manifest") -> "dict[str, Config]":
    from dmoe.cli.view import write_page
    from dmoe.config.config import dump_config
    from dmoe.model.budget.match import match

    ((path, control),) = configs.items()
    found = match(target, control, manifest, arguments.tolerance)
    for what, (mine, asked) in (("embedding parameters", found.embedding), ("dense parameters", found.dense), ("FLOPs a row", found.flops)):
        show(f"{what}: {mine:,} of {asked:,} ({mine / asked - 1:+.2%})")
    if found.off > arguments.tolerance:
        show(f"no widths come within {arguments.tolerance:g}; these come nearest")
    show(f"model.embedding.dim: {found.config.model.embedding.dim}\nmodel.experts: {found.config.model.experts}")
    if arguments.output:
        write_page(arguments.output, dump_config(found.config))
        show(f"config: {arguments.output}")
    return {arguments.match: target, path: found.config}
