"""`model.onnx`, the whole scorer, and `dense.onnx`, its part behind the tables."""

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dmoe.checkpoint.tensors import read_entries
from dmoe.paths import join
from dmoe.serve.format import ONNX, ONNX_DENSE, TABLES
from dmoe.serve.onnx_engine import DENSE, IDS
from dmoe.serve.portable.modules import OUTPUTS, ROWS, DensePart, WholeScorer
from dmoe.serve.scorer import Scorer

LARGEST = 1 << 30
"""Bytes of weights in one ONNX file, which protobuf bounds at 2 GiB; beyond, they lie beside it."""
ONNX_TYPES = {"F32": 1, "F16": 10, "I8": 3}
EXAMPLE_ROWS = 3


def write_onnx(scorer: Scorer, products: str = "fp32") -> list[str]:
    """Writes both files into the scorer's folder; `model.onnx` reads the tables where they are, in tables.safetensors.

    Args:
        products: fp32, or int8: weights of matrix products are int8 with a scale a column, their inputs int8 by each call's largest number.

    Returns:
        the files' names.
    """
    tables = read_entries(join(scorer.folder, TABLES))
    whole, dense = WholeScorer(scorer), DensePart(scorer)
    rows, scale = scorer.rows_RC[:1], None if scorer.scale_RS is None else scorer.scale_RS[:1]
    given = example(scorer, whole.inputs)
    # The tables of an example: a graph is of any number of their rows.
    small = [torch.cat([one] * EXAMPLE_ROWS) for one in (rows, scale) if one is not None]
    program = _exported(whole, [*given, *small], [*whole.inputs, *whole.tables], products)
    for name in whole.tables:
        _refer(program.graph, name, tables["rows" if name == ROWS else name])
    files = _save(program, scorer.folder, ONNX)
    return files + _save(_exported(dense, example(scorer, dense.inputs), dense.inputs, products), scorer.folder, ONNX_DENSE)


def example(scorer: Scorer, names: list[str]) -> list[Tensor]:
    """Arguments of those names for EXAMPLE_ROWS rows, all 0."""
    about, found = scorer.about, []
    fields = len(about.features)
    for name in names:
        if name.endswith(".values"):
            found.append(torch.zeros(5, dtype=torch.int64))
        elif name.endswith(".lengths"):
            found.append(torch.tensor([2, 0, 3]))
        elif name == IDS:
            found.append(torch.zeros(EXAMPLE_ROWS, fields, dtype=torch.int64))
        elif name == DENSE:
            found.append(torch.zeros(EXAMPLE_ROWS, len(about.dense)))
        else:
            found.append(torch.zeros(EXAMPLE_ROWS, fields, about.set_dims[int(name.removeprefix("set_"))]))
    return found


def dynamic_shapes(names: list[str]) -> tuple[tuple[dict[int, Any], ...]]:
    """Which first dimensions of those arguments are one number: rows, a bag's values, the tables' rows."""
    rows, table = torch.export.Dim("rows", min=1), torch.export.Dim("table", min=1)
    values = {name: torch.export.Dim(f"values_{index}", min=1) for index, name in enumerate(names) if name.endswith(".values")}
    return (tuple({0: values.get(name, table if name in (ROWS, "scale") else rows)} for name in names),)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the exporter's remarks on packages that it does not need."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _exported(module: nn.Module, given: list[Tensor], names: list[str], products: str) -> Any:
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            module.eval(),
            tuple(given),
            dynamo=True,
            verbose=False,
            input_names=names,
            output_names=OUTPUTS,
            dynamic_shapes=dynamic_shapes(names),
        )
        assert program is not None
        return program.model_proto if products == "fp32" else _quantised(program.model_proto)


def _quantised(proto: Any) -> Any:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory(prefix="dmoe-onnx-") as folder:
        path = join(folder, "int8.onnx")
        # Signed weights: processors multiply them with unsigned inputs in one instruction (VNNI), where they have it.
        quantize_dynamic(proto, path, weight_type=QuantType.QInt8, per_channel=True, op_types_to_quantize=["MatMul", "Gemm"])
        return onnx.load(path)


def _refer(graph: Any, name: str, entry: Any) -> None:
    """Makes an argument a weight that lies in the scorer's tables, of which no copy is made."""
    import onnx

    (argument,) = (one for one in graph.input if one.name == name)
    graph.input.remove(argument)
    weight = onnx.TensorProto(name=name, data_type=ONNX_TYPES[entry.dtype], dims=entry.shape, data_location=onnx.TensorProto.EXTERNAL)
    for key, value in (("location", TABLES), ("offset", entry.start), ("length", entry.bytes)):
        weight.external_data.add(key=key, value=str(value))
    graph.initializer.append(weight)


def _save(proto: Any, folder: str, name: str) -> list[str]:
    import onnx

    path, size = join(folder, name), sum(int(np.prod(one.dims)) * 4 for one in proto.graph.initializer if not one.external_data)
    if size <= LARGEST:
        onnx.save_model(proto, path)
    else:
        onnx.save_model(proto, path, save_as_external_data=True, location=f"{name}.data", size_threshold=1024)
    onnx.checker.check_model(path)
    return [name] + [f"{name}.data"] * (size > LARGEST)
