"""The sections of a config, each key with its type, default, bounds and what it does; `dmoe.config.config` makes one tree of them."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

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


class EmbeddingConfig(Strict):
    dim: int = Field(16, ge=1, le=4096, description="width of one expert's embedding of a feature")
    sets: Literal["per_expert", "shared", "light", "hashed"] = Field(
        "per_expert",
        description="per_expert: one set of tables for each expert (ME); shared: one set for all (SE); light: one set for all, and private"
        " rows of each expert for the most frequent ids; hashed: one set for all, which every expert reads through its own hash",
    )
    private_ids: int = Field(1000, ge=1, lt=2**31, description="light: ids of each feature, the most frequent, that have private rows")
    hashed_rows: int = Field(
        100_000, ge=1, lt=2**31, description="hashed: rows of a feature's table; a feature of fewer ids has a row for each"
    )
    layout: Literal["auto", "wide", "separate"] = Field(
        "auto",
        description="wide: a feature's embeddings of all experts stand in one table's row; separate: one table for each expert; equal"
        " mathematics; auto is wide, but separate with row-wise Adagrad",
    )
    init_std: float = Field(0.01, ge=0, description="standard deviation of the initial embeddings")


Width = Annotated[int, Field(ge=1, le=1 << 20)]
Rate = Annotated[float, Field(ge=0, lt=1)]


class TowerConfig(Strict):
    hidden: list[Width] = Field([64], max_length=256, description="widths of the hidden layers")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout after each hidden layer; its draws depend on the number of ranks")


class ModelConfig(Strict):
    embedding: EmbeddingConfig = EmbeddingConfig()
    experts: list[str | dict[str, Any]] = Field(
        ["crossnet", "cin", "mlp"], min_length=1, max_length=64, description="kinds of expert, each a name or {kind: name, option: value}"
    )
    expert_dim: Width = Field(64, description="d, the width of every expert's projected output")
    expert_norm: Literal["layer", "batch", "none"] = Field(
        "layer",
        description="normalisation of an expert's projected output; batch: over the global batch, in evaluation by running moments (HoME)",
    )
    activation: Literal["silu", "relu"] = Field("silu", description="activation of an expert's projected output")
    gate: Literal["softmax", "mmoe", "mean", "elementwise", "dselect_k"] = Field(
        "softmax",
        description="softmax: an expert's gate logit is made of its own embeddings; mmoe: of all embeddings; mean: equal weights;"
        " elementwise: one softmax for each output dimension (Crocodile); dselect_k: at most gate_experts experts for each row (DSelect-k)",
    )
    gate_experts: int = Field(2, ge=1, le=64, description="dselect_k: experts that a row may use, k")
    gate_gamma: float = Field(1.0, gt=0, le=1e6, description="dselect_k: width of the smooth step; the wider, the later a choice is final")
    mixture: Literal["hidden", "logits"] = Field(
        "hidden", description="what the gate weighs: the experts' hidden outputs, which one tower reads, or the experts' own logits"
    )
    tower: TowerConfig = TowerConfig()
    expert_tower: Literal["shared", "own"] = Field(
        "shared", description="tower that makes an expert's own logit: the mixture's tower, or one tower for each expert"
    )

    @model_validator(mode="after")
    def _gate_fits(self) -> "ModelConfig":
        if self.mixture == "logits" and self.gate == "elementwise":
            raise ValueError(
                "gate elementwise weighs dimensions, and mixture logits has one logit an expert: use gate softmax, mmoe or mean"
            )
        if self.gate == "dselect_k" and self.gate_experts > len(self.experts):
            raise ValueError(f"gate_experts: is {self.gate_experts}, and there are {len(self.experts)} experts to choose from")
        return self


class SupervisionConfig(Strict):
    """Losses on the logit of each expert alone, beside the mixture's own cross-entropy."""

    expert_weight: float | None = Field(
        None, ge=0, description="weight of the mean over experts of the cross-entropy of each one's own logit; 1 with agreement, else 0"
    )
    agreement: Literal["none", "ensemble", "mutual", "kdef"] = Field(
        "none", description="experts learn the mixture's probability (ensemble), each other's (mutual), or both (kdef); no weight to tune"
    )
    mixture_weight: float = Field(
        1.0,
        ge=0,
        description="weight of the mixture's cross-entropy; 0 (as KDEF) needs gate mean and mixture logits, or distill.teachers, or nothing"
        " would train them",
    )

    @property
    def on(self) -> bool:
        """Whether a loss reads the experts' own logits."""
        return self.cross_entropy > 0 or self.agreement != "none"

    @property
    def cross_entropy(self) -> float:
        """The weight of the experts' own cross-entropy."""
        return float(self.agreement != "none") if self.expert_weight is None else self.expert_weight


class DistillConfig(Strict):
    """Teachers: trained models whose probabilities this run's model, the student, learns beside the labels."""

    teachers: list[str] = Field(
        [],
        max_length=64,
        description="runs (the best checkpoint of each) or checkpoints; the student learns of each for an equal part of its steps, in this"
        " order; empty is off",
    )
    weight: float = Field(
        1.0, ge=0, description="weight of the divergence from the teacher; that of the labels is supervision.mixture_weight"
    )
    temperature: float = Field(1.0, gt=0, le=100, description="what both logits are divided by before they become probabilities")

    @property
    def on(self) -> bool:
        """Whether there is a teacher to learn from."""
        return bool(self.teachers) and self.weight > 0


class SpecialisationConfig(Strict):
    """Losses on the gate and on the experts' outputs of a row."""

    balance_weight: float = Field(0.0, ge=0, description="weight of the balance of the gate's mass over the experts; 0 is off")
    balance: Literal["load", "cv2"] = Field(
        "load", description="M sum_m f_m G_m, f the share of rows whose largest gate is m, G the mean gate; or G's squared variation"
    )
    orthogonality_weight: float = Field(0.0, ge=0, description="weight of the squared cosine of two experts' outputs of a row; 0 is off")
    gate_entropy_weight: float = Field(
        0.0, ge=0, description="gate dselect_k: weight of the entropy of each selector, which makes it choose one expert a row; 0 is off"
    )
    gate_reach_weight: float = Field(
        1.0,
        ge=0,
        description="gate dselect_k: weight of what keeps selectors off codes that are no expert's, where experts are no power of 2",
    )


class CorrelationConfig(Strict):
    """The de-correlation loss. Each choice that the paper leaves open is a key."""

    alpha: float = Field(0.0, ge=0, description="weight of the loss; 0 measures only")
    estimator: Literal["pearson", "covariance"] = Field("pearson", description="Pearson correlation, or covariance (Crocodile)")
    norm: Literal["l1", "l2", "l2_debiased"] = Field(
        "l1", description="mean of |r|, of r^2, or of r^2 less what independent columns of so many rows show (l2_debiased)"
    )
    scope: Literal["full", "diagonal"] = Field(
        "full", description="all pairs of output dimensions of two experts, or equal dimensions only"
    )
    target: Literal["hidden", "logit", "residual"] = Field(
        "hidden", description="what is de-correlated: the experts' hidden outputs, their logits, or label less probability"
    )
    reduce: Literal["moments", "gather"] = Field(
        "moments", description="how ranks combine: all-reduced moments, or all-gathered rows; equal values and gradients"
    )
    within_class: bool = Field(
        False, description="centre the rows of each label apart, so that correlation which the label causes is not punished"
    )
    stop_below: float = Field(0.0, ge=0, description="hinge: the correlation loss has no gradient below this value")
    warmup_steps: int = Field(0, ge=0, description="steps over which alpha rises from 0")
    decay_steps: int | None = Field(None, ge=1, description="steps after the warm-up over which alpha falls to 0 again")

    def alpha_factor(self, step: int) -> float:
        """What alpha is multiplied with at a step: rises over the warm-up, then falls where a decay is asked for."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        return 1.0 if self.decay_steps is None else max(0.0, 1 - (step - self.warmup_steps) / self.decay_steps)

    @model_validator(mode="after")
    def _scope_fits(self) -> "CorrelationConfig":
        if self.estimator == "covariance" and self.norm == "l2_debiased":
            raise ValueError("norm l2_debiased subtracts the floor of squared Pearson correlations: use estimator pearson")
        return self


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
