"""Writes `dense.onnx`, the part of a scorer after the tables, for dmoe serve, and `model.onnx`, the whole scorer, for other runtimes."""

import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dmoe.checkpoint.tensors import read_entries
from dmoe.serve.export.format import DENSE as DENSE_FILE
from dmoe.serve.export.format import ONNX, ONNX_DENSE, TABLES, ScorerFile
from dmoe.serve.onnx_engine import DENSE, IDS
from dmoe.serve.portable.modules import OFFSETS, OUTPUTS, ROWS, SCALE, DensePart, WholeScorer, WithWeights
from dmoe.serve.rows import FullRows
from dmoe.serve.scorer import Scorer
from dmoe.storage.paths import PATHS, join

LARGEST = 1 << 30
"""Largest size in bytes of weights within an ONNX file, because protobuf has a limit of 2 GiB. Larger weights are in a file beside it."""
ONNX_TYPES = {"F32": 1, "F16": 10, "I8": 3}
EXAMPLE_ROWS = 3
LEAST_INPUTS = 32
"""Smallest number of inputs of an int8 product with the weight on the left: with fewer, writing the result costs more than int8 saves."""


def write_onnx(scorer: Scorer, products: str = "fp32") -> list[str]:
    """Writes `dense.onnx` into the folder of the scorer, and `model.onnx` if the look-ups can be expressed as a graph.

    The files hold no weights: they refer to tables.safetensors and dense.safetensors.

    Args:
        products: fp32, or int8: weights of matrix products are int8 with a scale for each column, and inputs are quantized to int8 by the
            largest number of each call. With int8, the files hold all weights except the tables.

    Returns:
        the names of the files.
    """
    parts: list[tuple[str, Any, dict[str, Tensor]]] = [(ONNX_DENSE, DensePart(scorer), {})]
    known = scorer.mixture.state_dict(keep_vars=True)
    if has_whole_graph(scorer.about):
        assert isinstance(scorer.rows, FullRows)
        whole, stored = WholeScorer(scorer, parts[0][1]), {ROWS: scorer.rows.rows.rows_RC, SCALE: scorer.rows.rows.scale_RS}
        # Small example tables: the graph accepts any number of rows.
        tables = {name: torch.cat([stored[name][:1]] * EXAMPLE_ROWS) for name in whole.tables}  # type: ignore[index]
        parts.append((ONNX, whole, tables))
        known |= {OFFSETS: scorer.rows.offset_F}
    files = []
    for name, part, beside in parts:
        lifted = WithWeights(part, known if products == "fp32" else {one: known[one] for one in known if one == OFFSETS})
        given = dict(zip(part.inputs, example(scorer, part.inputs), strict=True)) | beside
        program = _exported(lifted, given, products)
        _refer(program, scorer)
        files += _save(program, scorer.folder, name)
    return files


def has_whole_graph(about: ScorerFile) -> bool:
    """Whether the look-ups can be expressed as an ONNX graph: not for pq, light and hashed rows."""
    return about.rows != "pq" and about.model.embedding.sets not in ("light", "hashed")


def renew_onnx(old: str, scorer: Scorer) -> list[str]:
    """Writes the same files as `write_onnx`, from those of another scorer that differs only in weights and numbers of ids.

    Args:
        old: folder of the other scorer.

    Returns:
        the names of the files; empty if the old files are missing, or hold their weights.
    """
    import onnx

    files = []
    for name in [ONNX_DENSE] + [ONNX] * has_whole_graph(scorer.about):
        if not PATHS.exists(join(old, name)):
            return []
        program = onnx.load(join(old, name), load_external_data=False)
        if not _refer(program, scorer):
            return []
        files += _save(program, scorer.folder, name)
    return files


def example(scorer: Scorer, names: list[str]) -> list[Tensor]:
    """Example values, all 0, of the named arguments for EXAMPLE_ROWS rows."""
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
            found.append(torch.zeros(EXAMPLE_ROWS, fields, sum(about.set_dims)))
    return found


def dynamic_shapes(names: Sequence[str], weights: int = 0) -> tuple[tuple[dict[int, Any], ...]]:
    """The dynamic first dimensions of the named arguments: rows of the batch, values of a bag, or rows of the tables. `weights` further
    arguments have none."""
    rows, table = torch.export.Dim("rows", min=1), torch.export.Dim("table", min=1)
    values = {name: torch.export.Dim(f"values_{index}", min=1) for index, name in enumerate(names) if name.endswith(".values")}
    return (tuple({0: values.get(name, table if name in (ROWS, SCALE) else rows)} for name in names) + ({},) * weights,)


@contextmanager
def quiet() -> Iterator[None]:
    """Hides the exporter's warnings about packages that are not needed."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _exported(module: WithWeights, given: Mapping[str, Tensor], products: str) -> Any:
    """Exports a module. The initializers of its weights have no content yet, except with int8 products."""
    import onnx

    names = [*given, *module.weights]
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            module.eval(),
            (*given.values(), *module.weights.values()),
            dynamo=True,
            verbose=False,
            input_names=names,
            output_names=OUTPUTS,
            dynamic_shapes=dynamic_shapes(list(given), len(module.weights)),
        )
        assert program is not None
        proto = program.model_proto if products == "fp32" else _quantised(program.model_proto)
    _forget_origin(proto)
    arguments = {one.name: one for one in proto.graph.input}
    for name in (*(one for one in (ROWS, SCALE) if one in given), *module.weights):
        proto.graph.input.remove(arguments[name])
        # A weight that no operation reads is left out.
        if any(name in node.input for node in proto.graph.node):
            proto.graph.initializer.append(onnx.TensorProto(name=name))
    return proto


def _forget_origin(proto: Any) -> None:
    """Removes the exporter's notes on source files, so that the graph is the same on every machine."""
    for one in (*proto.graph.node, *(node for function in proto.functions for node in function.node)):
        del one.metadata_props[:]
        one.doc_string = ""
    del proto.metadata_props[:], proto.graph.metadata_props[:]


def _quantised(proto: Any) -> Any:
    import onnx
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory(prefix="dmoe-onnx-") as folder:
        path = join(folder, "int8.onnx")
        # Expressions of weights only are folded to one weight, which is then quantized too.
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath, options.log_severity_level = path, 3
        onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        # Weights are signed: CPUs with VNNI multiply signed weights with unsigned inputs in one instruction.
        quantize_dynamic(onnx.load(path), path, weight_type=QuantType.QInt8, per_channel=True, op_types_to_quantize=["MatMul", "Gemm"])
        found = onnx.load(path)
        wide = {one.name for one in found.graph.initializer if len(one.dims) == 2 and one.dims[1] >= LEAST_INPUTS}
        if left := [node.name for node in found.graph.node if node.op_type == "MatMul" and node.input[0] in wide]:
            # For weights on the left, the weights must be the unsigned operand.
            more = {"MatMulConstBOnly": False}
            quantize_dynamic(found, path, weight_type=QuantType.QUInt8, nodes_to_quantize=left, extra_options=more)
            found = onnx.load(path)
        return found


def _refer(proto: Any, scorer: Scorer) -> bool:
    """Makes the weights of a graph refer to the files of the scorer, without a copy. Returns whether weights of the dense part are among
    them."""
    import onnx

    folder, rows = scorer.folder, scorer.rows
    entries = {name: (file, entry) for file in (TABLES, DENSE_FILE) for name, entry in read_entries(join(folder, file)).items()}
    for weight in proto.graph.initializer:
        if weight.name == OFFSETS and isinstance(rows, FullRows):
            weight.CopyFrom(onnx.numpy_helper.from_array(rows.offset_F.numpy(), OFFSETS))
        elif weight.name in entries:
            file, entry = entries[weight.name]
            external = onnx.TensorProto.EXTERNAL
            found = onnx.TensorProto(name=weight.name, data_type=ONNX_TYPES[entry.dtype], dims=entry.shape, data_location=external)
            for key, value in (("location", file), ("offset", entry.start), ("length", entry.bytes)):
                found.external_data.add(key=key, value=str(value))
            weight.CopyFrom(found)
    return any(one.name in entries and entries[one.name][0] == DENSE_FILE for one in proto.graph.initializer)


def _save(proto: Any, folder: str, name: str) -> list[str]:
    import onnx

    path, size = join(folder, name), sum(int(np.prod(one.dims)) * 4 for one in proto.graph.initializer if not one.external_data)
    if size <= LARGEST:
        onnx.save_model(proto, path)
    else:
        onnx.save_model(proto, path, save_as_external_data=True, location=f"{name}.data", size_threshold=1024)
    onnx.checker.check_model(path)
    return [name] + [f"{name}.data"] * (size > LARGEST)
