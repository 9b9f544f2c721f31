"""Print what models will cost before one of them is trained: parameters, bytes, FLOPs, memory, inference.

dmoe cost --data data/criteo configs/criteo_*.yaml
dmoe cost --data data/criteo --ladder configs/ladder_demo.yaml
"""

import argparse

from dmoe.errors import UserError
from dmoe.names import show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", nargs="*", help="experiments, YAML files")
    parser.add_argument("--ladder", help="all variants of a ladder")
    parser.add_argument("--data", required=True, help="the data set, for the tables' sizes")
    parser.add_argument("--ranks", type=int, default=1, help="processes that the tables are spread over (1)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="lays a value over every config; repeatable")


def run(arguments: argparse.Namespace) -> None:
    if not arguments.config and not arguments.ladder:
        raise UserError("name a config, or --ladder")
    if arguments.ranks < 1:
        raise UserError(f"--ranks {arguments.ranks}: expected at least one")
    from dmoe.train.log_filters import quiet

    quiet()
    from dmoe.config import load_config, setting
    from dmoe.data.dataset.manifest import load_manifest
    from dmoe.model.cost import cost_of, cost_rows
    from dmoe.report.ladder_spec import load_spec, resolve
    from dmoe.report.runs import as_text

    overrides = [*arguments.set, setting("data.path", arguments.data)]
    configs = {path: load_config(path, overrides) for path in arguments.config}
    if arguments.ladder:
        spec = load_spec(arguments.ladder)
        configs |= {spec.label(name): resolve(spec, arguments.ladder, name, 0, overrides, "none") for name in spec.variants}
    manifest = load_manifest(arguments.data)
    costs = {name: cost_of(config, manifest) for name, config in configs.items()}
    batch_size = next(iter(configs.values())).train.batch_size
    show(as_text(cost_rows(costs, batch_size, arguments.ranks)))
    print(
        f"\nGlobal batch {batch_size:,}. FLOPs are of a row's forward pass; a training step takes about three times that."
        " Memory is tables, their"
        " optimiser's state, four copies of the dense part and the activations, spread evenly; torch and TorchRec take about"
        " 0.7 GB beside it."
    )
