"""Makes the folder of a scorer an MLflow model of the `python_function` flavor, for `mlflow models serve` and `mlflow.pyfunc.load_model`.

Shapes: B rows.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from dmoe.serve.scorer import Scorer
from dmoe.storage.paths import join, write_text
from dmoe.version import __version__

FILE, REQUIREMENTS = "MLmodel", "requirements.txt"


class PyFunc:
    """The model object that MLflow calls."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> np.ndarray:
        """The click probability of each row, [B] float32.

        Args:
            model_input: raw rows with the columns of the training log, see `Scorer.predict`: a pandas DataFrame, or a list of dicts.

        Raises:
            UserError: preprocessing would refuse a row.
        """
        rows: pa.Table | Sequence[Mapping[str, Any]] = model_input
        if not isinstance(model_input, list | pa.Table):
            absent = [name for name in self.scorer.encoder.columns if name not in model_input]
            rows = pa.Table.from_pandas(model_input.assign(**dict.fromkeys(absent)), preserve_index=False)
        return self.scorer.predict(rows)


def _load_pyfunc(path: str) -> PyFunc:
    """Opens a model folder. MLflow requires this name."""
    return PyFunc(Scorer(path))


def write_mlmodel(folder: str) -> None:
    """Adds the files of an MLflow model to the folder of a scorer, which remains a scorer.

    The signature of the model names the columns, but not their types: integers may be sent as numbers or as text.

    Raises:
        UserError: the scorer takes only ids.
    """
    import mlflow
    from mlflow.models import Model, ModelSignature
    from mlflow.pyfunc import add_to_model
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import AnyType

    inputs = Schema([ColSpec(AnyType(), name, required=False) for name in Scorer(folder).encoder.columns])
    model = Model(signature=ModelSignature(inputs, Schema([ColSpec(DataType.float, "probability")])))
    add_to_model(model, loader_module=__name__)
    write_text(join(folder, REQUIREMENTS), f"mlflow=={mlflow.__version__}\ndmoe=={__version__}\n")
    write_text(join(folder, FILE), model.to_yaml())
