"""The sections of a config, each key with its type, default, bounds and what it does; `dmoe.config.config` makes one tree of them.

The sections of the model and its losses are in `dmoe.config.model_sections`.
"""

from typing import Annotated, Literal

from pydantic import Field

from dmoe.config.strict import Strict


class DataConfig(Strict):
    path: str = Field("", description="the folder that dmoe preprocess made")
    train_split: str = Field("train", description="split that the model is trained on")
    validation_split: str = Field("validation", description="split that chooses the best checkpoint and drives early stopping")
    test_split: str = Field("test", description="split that the best checkpoint is tested on at the end")
    dense: Literal["numeric", "buckets", "both"] = Field(
        "both", description="how the model reads a number that the data set also has as a bucket: the number, the bucket's id, or both"
    )
    features: list[str] | None = Field(None, description="the categorical features to use; all of the data set where absent")
    shuffle: Literal["window", "row_groups", "none"] = Field(
        "window",
        description="order of the train split's rows, anew every epoch: row groups and the rows in a window of them shuffled (window), row"
        " groups alone (row_groups), or the files' order (none)",
    )
    window_row_groups: int = Field(
        8,
        ge=1,
        description="number of row groups interleaved in a shuffled batch; at least the number of ranks, or ranks decode the same groups",
    )
    prefetch: int = Field(2, ge=0, description="batches that a background thread prepares in advance")


Rate = Annotated[float, Field(ge=0, lt=1)]
OptimizerName = Literal["adagrad", "rowwise_adagrad", "sgd", "adam"]


class TableOptimizerConfig(Strict):
    """The optimizer of the embedding tables, fused into the backward pass of sharded ones."""

    kind: OptimizerName = Field("adagrad", description="optimizer of all tables; adam needs a GPU")
    lr: float = Field(0.05, gt=0, description="learning rate")
    eps: float = Field(1e-8, gt=0, description="added to the denominator of a step")
    betas: tuple[Rate, Rate] = Field((0.9, 0.999), strict=False, description="decay rates of Adam's moments")


class DenseOptimizerConfig(Strict):
    """The optimizer of everything but the tables."""

    kind: Literal["adam", "adamw", "adagrad", "sgd"] = Field("adam", description="optimizer of the dense parameters")
    lr: float = Field(1e-3, gt=0, description="learning rate")
    eps: float = Field(1e-8, gt=0, description="added to the denominator of a step")
    betas: tuple[Rate, Rate] = Field((0.9, 0.999), strict=False, description="decay rates of Adam's moments")
    weight_decay: float = Field(0.0, ge=0, description="L2 term of the gradient; of adamw the decoupled decay")
    clip_norm: float | None = Field(
        None, gt=0, description="largest global norm of the dense gradients; gradients of tables are not clipped"
    )
    relative_clip: float | None = Field(
        None, gt=0, description="shortens a tensor's step until no weight changes by more than this share of itself and 0.01 (Clippy)"
    )


class ScheduleConfig(Strict):
    """One factor of the learning rates of tables and dense parameters alike."""

    warmup_steps: int = Field(0, ge=0, description="steps over which the factor rises from 0 to 1")
    decay: Literal["none", "linear", "cosine"] = Field("none", description="how the factor falls after the warm-up")
    decay_steps: int | None = Field(None, ge=1, description="steps of the decay after the warm-up; the whole run where absent")
    min_factor: float = Field(0.0, ge=0, le=1, description="the factor at the end of the decay")
    plateau_factor: float = Field(
        1.0,
        gt=0,
        le=1,
        description="factor at each validation without a better AUC (without a better logloss, where it has no AUC); 1 is off",
    )
    plateau_patience: int = Field(0, ge=0, description="validations without improvement that are accepted before plateau_factor applies")


class OptimizerConfig(Strict):
    tables: TableOptimizerConfig = TableOptimizerConfig()
    dense: DenseOptimizerConfig = DenseOptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    embedding_l2: float = Field(0.0, ge=0, description="weight of L2 on the rows that a batch looks up; other rows do not decay")


ShardingTypeName = Literal["data_parallel", "table_wise", "column_wise", "row_wise", "table_row_wise", "table_column_wise", "grid_shard"]
KernelName = Literal["dense", "fused", "fused_uvm", "fused_uvm_caching"]
Precision = Literal["fp32", "fp16", "bf16"]


class TableConstraint(Strict):
    """What a plan may do with the tables of one name or pattern."""

    types: list[ShardingTypeName] | None = Field(None, min_length=1, description="sharding types to choose from")
    kernels: list[KernelName] | None = Field(
        None, min_length=1, description="fused: on the device; fused_uvm(_caching): in the host's memory; dense: data-parallel"
    )
    min_partition: int | None = Field(
        None, ge=4, description="columns of a column shard: whole embeddings of a wide table, or a part of each"
    )
    ranks: list[int] | None = Field(None, min_length=1, description="the ranks that may hold shards; table-wise and column-wise only")
    pooling_factor: float | None = Field(None, gt=0, le=1e9, description="ids a row, on average")
    batch_size: int | None = Field(None, ge=1, le=1 << 40, description="rows of a rank's batch that look this table up")


class ShardingConfig(Strict):
    types: list[ShardingTypeName] | None = Field(
        None,
        description="sharding types that the planner may choose from, on the device alone; where absent all that the optimizer allows, and"
        " tables in the host's memory (UVM) where the device's does not do",
    )
    tables: dict[str, TableConstraint] = Field(
        {}, description="constraints by table, feature or pattern such as 'C1*'; a later entry lays its values over an earlier one's"
    )
    plan: str = Field("", description="a plan file to use; where empty, the run plans itself")
    comm_precision: Precision = Field(
        "fp32", description="precision in which embeddings and their gradients are sent between ranks; bf16 between GPUs only"
    )


class GuardConfig(Strict):
    """Stops a run whose loss or AUC shows that it does not learn."""

    enabled: bool = Field(True, description="whether the guard stops a run")
    after_steps: int = Field(200, ge=1, description="steps before the loss and the AUC are judged")
    min_auc: float = Field(0.505, ge=0, lt=1, description="lowest validation AUC after `after_steps`")
    max_loss_ratio: float = Field(1.05, gt=0, description="largest mean training loss, as a multiple of the entropy of the click rate")


class CheckpointConfig(Strict):
    every_steps: int | None = Field(None, ge=1, description="steps between checkpoints, beside the one after each validation")
    keep: int = Field(2, ge=1, description="number of newest checkpoints kept, beside the best one")
    asynchronous: bool = Field(True, description="training goes on while a thread writes a copy that was taken in CPU memory")
    copy_gib: float = Field(16.0, ge=0, description="GiB; a rank whose part is larger writes it without a copy, and training waits")


class TrainConfig(Strict):
    batch_size: int = Field(2048, ge=1, le=1 << 40, description="rows of the global batch, over all ranks")
    eval_batch_size: int = Field(8192, ge=1, le=1 << 40, description="rows of the global batch of validation and test")
    epochs: int = Field(1, ge=1, description="passes over the train split")
    max_steps: int | None = Field(None, ge=1, description="the run ends after so many steps, within an epoch too")
    seed: int = Field(0, ge=0, lt=2**31, description="seed of the initial weights, the order of the rows, and dropout")
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="precision of the dense part (autocast); the correlation loss stays in fp32"
    )
    compile: bool = Field(False, description="torch.compile of the dense part: a slow first step, then faster ones; needs a C++ compiler")
    validations_per_epoch: int = Field(1, ge=1, description="validations in an epoch, each with a checkpoint")
    init_from: str = Field(
        "",
        description="a checkpoint, or a run (its best one), whose weights and optimizer states step 0 starts from; tables may have grown",
    )
    early_stopping: int | None = Field(
        None, ge=1, description="validations without a better AUC (without a better logloss, where it has no AUC) before the run stops"
    )
    log_every: int = Field(50, ge=1, description="steps between lines of the log; losses are read from the device only then")
    guard: GuardConfig = GuardConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()


class MetricsConfig(Strict):
    auc: Literal["binned", "exact"] = Field(
        "binned", description="AUC from a histogram, told with its bound of error, or from all scores sorted"
    )
    auc_bins: int = Field(1 << 20, ge=2, le=1 << 24, description="bins of the histogram")
    predictions: bool = Field(False, description="keep the logit and label of every test row in the run, for paired tests between runs")
    expert_predictions: bool = Field(
        False, description="with predictions, keep the logit and the gate weight of each expert too, for dmoe report experts"
    )
    abundance: bool = Field(True, description="information abundance of the tables, measured at the end from the checkpoint")


class RunConfig(Strict):
    dir: str = Field("", description="folder of the run: config, plan, metrics, checkpoints")
    trackers: list[Literal["tensorboard", "mlflow", "wandb"]] = Field(
        ["tensorboard"], description="what records the run beside its own files; mlflow and wandb need dmoe[mlflow] and dmoe[wandb]"
    )
    timeout_seconds: int = Field(
        600, ge=1, le=10**7, description="a rank that waits longer for the others ends the run and names the rank it waited for"
    )
