"""Options of `dmoe report ladder` and `frontier`. Imports no slow module."""

from dataclasses import MISSING, dataclass, field

from dmoe.config.option import option


@dataclass(frozen=True)
class LadderOptions:
    """What to train and to report. `set` overrides values of every variant; `torchx_arg` are further arguments of the torchx component."""

    config: str = option(MISSING, "the ladder, a YAML file such as configs/ladder_demo.yaml")
    output: str = option(MISSING, "folder of the runs and the report; finished runs in it are not trained again")
    variants: str = option("", "these variants alone (all)", metavar="A,B,...")
    seeds: int = option(5, "runs of each variant (%(default)s)")
    first_seed: int = option(0, "train and report seeds N, N + 1, ... alone (%(default)s)")
    latency_rounds: int = option(10, "calls of each size of every variant's scorer, for its latency; 0 measures none (%(default)s)")
    jobs: int = option(0, "runs at a time (as many as cores and memory allow)")
    torchx: str = option("", "hand each run to torchx instead, such as local_cwd or slurm", metavar="SCHEDULER")
    report_only: bool = option(False, "train nothing; report what is finished")
    set: list[str] = field(default_factory=list)
    torchx_arg: list[str] = field(default_factory=list)

    @property
    def all_seeds(self) -> range:
        return range(self.first_seed, self.first_seed + self.seeds)
