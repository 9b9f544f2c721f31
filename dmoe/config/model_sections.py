"""The sections of a config that describe the model and its losses; for the others see `dmoe.config.sections`."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from dmoe.config.strict import Strict

Width = Annotated[int, Field(ge=1, le=1 << 20)]


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


class SpecializationConfig(Strict):
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
