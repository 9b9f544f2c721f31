"""The `online` part of a config: windows of a log that grows, ids that come and go, versions, alarms."""

from typing import Annotated, Literal

from pydantic import Field

from dmoe.config.strict import FeatureName, Strict

Capacity = Annotated[int, Field(ge=3, lt=2**31)]


class WindowsConfig(Strict):
    """Which files make a window."""

    by: Literal["files", "rows", "time"] = Field(
        "files",
        description="so many files; files of so many rows at least; or all files whose first row is of one interval of time",
    )
    size: float = Field(1.0, gt=0, description="files, rows, or seconds of the time column")
    complete: Literal["renamed", "success"] = Field(
        "renamed", description="a file is complete once it has its name (hidden and temporary names do not count), or beside _SUCCESS"
    )
    poll_seconds: float = Field(5.0, gt=0, description="seconds between two looks at the source")
    max_bad_share: float = Field(0.001, ge=0, le=1, description="largest share of malformed lines; a window with more is quarantined")
    keep: int = Field(1, ge=1, description="number of newest prepared windows that stay on disk")


class IdsConfig(Strict):
    """A row for each token that is seen often, as long as it is."""

    hash_size: str = Field("", description="rows of a table, such as 100000 or 100000,C6=5000: ids by hash, without admission and eviction")
    capacity: Capacity = Field(100_000, description="rows of a feature's tables, two of them for missing and rare; buckets: 4096 at most")
    capacities: dict[FeatureName, Capacity] = Field({}, description="capacity by feature")
    admit_count: float = Field(5.0, ge=0, description="sightings after which a token gets a row of its own")
    decay: float = Field(0.9, gt=0, le=1, description="factor that multiplies earlier sightings at each window")
    max_age: int | None = Field(None, ge=1, description="windows without a sighting after which any newcomer may take the row")
    candidates: float = Field(
        4.0, ge=0, description="number of tokens without a row whose sightings are counted, as a multiple of the capacity"
    )


class VersionsConfig(Strict):
    """What is published."""

    rows: Literal["fp32", "fp16", "int8"] = Field("fp32", description="precision of the published tables")
    onnx: bool = Field(True, description="with the ONNX graphs by which dmoe serve is fastest, where dmoe[onnx] is installed")
    minutes: float = Field(0.0, ge=0, description="least minutes between two versions; 0 publishes every window")
    full_every: int = Field(24, ge=1, description="every n-th version is a full one; the others are deltas")
    keep_full: int = Field(2, ge=1, description="full versions that are kept, with the deltas behind them")


class WatchConfig(Strict):
    """When a window, or the model that it made, is not sound."""

    action: Literal["quarantine", "stop", "tell"] = Field("quarantine", description="what an alarm does")
    check_rows: int = Field(16_384, ge=1, description="rows of the window that are scored again once it was learned")
    after: int = Field(4, ge=1, description="number of good windows needed before a window is compared with them")
    history: int = Field(24, ge=2, description="number of newest good windows that a window is compared with")
    deviations: float = Field(6.0, gt=0, description="standard errors, of the past and of the window's rows together")
    ne: float = Field(0.05, ge=0, description="rise of the normalised entropy that is never an alarm")
    calibration: float = Field(0.2, ge=0, description="change of log(predicted / observed clicks) that is never an alarm")
    share: float = Field(0.1, ge=0, description="change of a share (unknown, missing, most frequent token, gate) that is never an alarm")
    cec: float = Field(0.15, ge=0, description="rise of the experts' correlation that is never an alarm")
    mean: float = Field(1.0, ge=0, description="change of a number's mean, in its deviations, that is never an alarm")
    norm: float = Field(0.5, ge=0, description="relative change of the weights' norm in one window that is never an alarm")
    gap: float = Field(10.0, gt=0, description="lengths of a window that the time may jump")
    most_in_a_row: int = Field(3, ge=1, description="quarantined windows after which the run stops and asks")


class OnlineConfig(Strict):
    """A run over the windows of a log that grows: `dmoe online`."""

    schema_file: str = Field("", description="the log's schema: a file, or the name of one that dmoe brings along")
    windows: WindowsConfig = WindowsConfig()
    ids: IdsConfig = IdsConfig()
    versions: VersionsConfig = VersionsConfig()
    watch: WatchConfig = WatchConfig()
    state_decay: float = Field(
        1.0, gt=0, le=1, description="Adagrad's sums are multiplied with it before a window, so that learning rates do not vanish"
    )
    replay: float = Field(0.0, ge=0, le=1, description="rows of the window before that are trained again, as a share of the window's rows")
    ema: float = Field(
        0.0, ge=0, lt=1, description="decay a step of a moving average of the dense weights, which versions and tests then take; 0 is off"
    )
    teacher: float = Field(
        0.0, ge=0, description="weight of the divergence from what the model before the window said of its rows (distillation); 0 is off"
    )
    rate_power: float = Field(
        0.0,
        ge=-1,
        le=1,
        description="how far a window moves a row is multiplied with (sightings / their median) to this power, 1/4 .. 4; 0 is off",
    )
