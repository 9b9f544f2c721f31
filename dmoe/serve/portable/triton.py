"""A Triton model repository for the ONNX Runtime backend: https://docs.nvidia.com/deeplearning/triton-inference-server/."""

from dmoe.serve.export.format import ScorerFile
from dmoe.serve.onnx_engine import DENSE, IDS, LOGIT, PROBABILITY, lengths_name, values_name

VERSION_FOLDER = "1"
LARGEST_BATCH, DELAY_US = 4096, 200
_Tensors = list[tuple[str, str, list[int]]]


def config_of(name: str, about: ScorerFile) -> str:
    """The content of config.pbtxt.

    Args:
        name: name of the model, which is also the name of its folder.
        about: the scorer in the version folder. Triton does not batch the requests if it has multi-valued features, because their tensors
            have different shapes.
    """
    bags = [one.name for one in about.features if one.pooling != "none"]
    given: _Tensors = [(DENSE, "TYPE_FP32", [len(about.dense)])] * bool(about.dense) + [(IDS, "TYPE_INT64", [len(about.features)])]
    made: _Tensors = [(PROBABILITY, "TYPE_FP32", []), (LOGIT, "TYPE_FP32", [])]
    ragged: _Tensors = [(one, "TYPE_INT64", []) for bag in bags for one in (values_name(bag), lengths_name(bag))]
    lines = [f"name: {_text(name)}", 'platform: "onnxruntime_onnx"']
    if bags:
        lines += ["max_batch_size: 0", *_tensors("input", [*given, *ragged], [-1]), *_tensors("output", made, [-1])]
    else:
        lines += [f"max_batch_size: {LARGEST_BATCH}", *_tensors("input", given, []), *_tensors("output", made, [])]
        lines.append(f"dynamic_batching {{ max_queue_delay_microseconds: {DELAY_US} }}")
    lines.append("instance_group [ { kind: KIND_CPU, count: 1 } ]")
    return "\n".join([*lines, 'parameters { key: "intra_op_thread_count" value { string_value: "1" } }']) + "\n"


def _tensors(kind: str, tensors: _Tensors, batch: list[int]) -> list[str]:
    found = []
    for name, dtype, dims in tensors:
        whole = [*batch, *dims]
        # Triton requires a dim, but the outputs of the graph have only the batch dimension.
        shape = f"dims: {whole}" if whole else "dims: [ 1 ] reshape { shape: [ ] }"
        found.append(f"{kind} [ {{ name: {_text(name)} data_type: {dtype} {shape} }} ]")
    return found


def _text(value: str) -> str:
    """A protobuf string; bytes that are not printable ASCII, quotes and backslashes are octal escapes."""
    return '"' + "".join(chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:03o}" for byte in value.encode()) + '"'
