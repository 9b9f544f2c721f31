"""The tensors of the KServe v2 inference protocol, as JSON and in the binary extension.

https://github.com/kserve/open-inference-protocol; the binary extension is that of Triton. A request has a tensor for each column of the raw
log, with B rows each. BYTES are text; empty texts and NaN are missing values. Or a request has `dense` [B, I] and `ids` [B, F], as in
`Scorer.logits`.
"""

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from dmoe.errors import UserError, one_line, shown
from dmoe.json_text import format_json, parse_json
from dmoe.names import whole_number

NUMPY = {
    "BOOL": np.bool_,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}
JSON_TYPES: dict[str, set[type]] = {"b": {bool}, "i": {int}, "u": {int}, "f": {int, float, type(None)}}
"""The types of values in JSON, by the kind of numpy's type. null is NaN: numpy would also round 1.5 and read texts."""
HEADER_LENGTH = "inference-header-content-length"
DENSE, IDS = "dense", "ids"
OUTPUTS = ("probability", "logit")


class Request:
    """A parsed request.

    Attributes:
        tensors: name -> a list of str, or an array of numbers.
        outputs: requested outputs in order: (name, whether as binary data).
        fields: the `parameters` of the request.
    """

    def __init__(self, body: bytes, header_length: str | None) -> None:
        """
        Raises:
            UserError: the request is malformed; says what is wrong.
        """
        head = len(body)
        if header_length is not None:
            length = whole_number(header_length)
            if length is None or length > len(body):
                raise UserError(f"header {HEADER_LENGTH}: {shown(header_length)} in a body of {len(body)} bytes")
            head = length
        try:
            tree = parse_json(body[:head])
        except (ValueError, RecursionError) as error:
            raise UserError(f"the request is not JSON ({one_line(str(error), 200)})") from None
        if not isinstance(tree, dict) or not isinstance(tree.get("inputs"), list) or not tree["inputs"]:
            raise UserError("the request has no list `inputs` of tensors")
        self.id = str(tree["id"])[:200] if "id" in tree else None
        self._binary, self._at = body[head:], 0
        self.tensors: dict[str, Any] = {}
        for one in tree["inputs"]:
            name, value = self._tensor(one)
            if name in self.tensors:
                raise UserError(f"tensor {shown(name)} is there twice")
            self.tensors[name] = value
        if self._at != len(self._binary):
            raise UserError(f"{len(self._binary) - self._at} bytes behind the last tensor")
        parameters = tree.get("parameters")
        self.fields: dict[str, Any] = parameters if isinstance(parameters, dict) else {}
        by_default = self.fields.get("binary_data_output") is True
        self.outputs = _outputs(tree.get("outputs"), by_default)

    def _tensor(self, one: Any) -> tuple[str, Any]:
        if not isinstance(one, dict) or not isinstance(one.get("name"), str):
            raise UserError("a tensor of `inputs` has no name")
        name, dtype, shape = one["name"], one.get("datatype"), one.get("shape")
        where = f"tensor {shown(name)}"
        if not isinstance(shape, list) or not 1 <= len(shape) <= 2 or any(type(size) is not int or not 0 <= size < 2**31 for size in shape):
            raise UserError(f"{where}: shape is {shown(shape)}, expected [rows] or [rows, columns]")
        if not isinstance(dtype, str) or (dtype not in NUMPY and dtype != "BYTES"):
            raise UserError(f"{where}: datatype is {shown(dtype)}, expected BYTES or one of {', '.join(NUMPY)}")
        count = int(np.prod(shape, dtype=object))
        parameters = one.get("parameters")
        size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
        if size is not None:
            if type(size) is not int or not 0 <= size <= len(self._binary) - self._at:
                raise UserError(f"{where}: binary_data_size is {shown(size)}, {len(self._binary) - self._at} bytes are left")
            data = self._binary[self._at : self._at + size]
            self._at += size
            return name, _from_binary(data, dtype, shape, count, where)
        return name, _from_json(one.get("data"), dtype, shape, count, where)

    def values(self, name: str) -> list[Any]:
        """The values of a tensor in order, texts or numbers; empty if it is missing."""
        value = self.tensors.get(name, [])
        return value if isinstance(value, list) else value.reshape(-1).tolist()

    def columns(self, needed: Sequence[str]) -> pa.Table:
        """The raw columns as a table.

        Raises:
            UserError: a column is missing, or columns have different numbers of rows.
        """
        arrays: dict[str, pa.Array] = {}
        for name in needed:
            if name not in self.tensors:
                raise UserError(f"no tensor {shown(name)}: the model reads {', '.join(map(shown, needed))}")
            value = self.tensors[name]
            flat = value if isinstance(value, list) else value.reshape(-1)
            array = pa.array(flat, from_pandas=True)
            arrays[name] = array.cast(pa.float32()) if pa.types.is_float16(array.type) else array
        sizes = {name: len(array) for name, array in arrays.items()}
        if len(set(sizes.values())) > 1:
            raise UserError(f"tensors have different numbers of rows: {', '.join(f'{shown(name)} {size}' for name, size in sizes.items())}")
        return pa.table(arrays)


def _outputs(asked: Any, by_default: bool) -> list[tuple[str, bool]]:
    if asked is None:
        return [(OUTPUTS[0], by_default)]
    found: list[tuple[str, bool]] = []
    for one in asked if isinstance(asked, list) else [None]:
        if not isinstance(one, dict) or one.get("name") not in OUTPUTS:
            raise UserError(f"outputs: expected tensors of {', '.join(OUTPUTS)}")
        if any(one["name"] == name for name, _ in found):
            raise UserError(f"outputs: {one['name']} is there twice")
        parameters = one.get("parameters")
        binary = parameters.get("binary_data", by_default) if isinstance(parameters, dict) else by_default
        found.append((one["name"], binary is True))
    return found


def _from_binary(data: bytes, dtype: str, shape: list[int], count: int, where: str) -> Any:
    if dtype != "BYTES":
        width = np.dtype(NUMPY[dtype]).itemsize
        if len(data) != count * width:
            raise UserError(f"{where}: {len(data)} bytes, its shape asks for {count * width}")
        return np.frombuffer(data, np.dtype(NUMPY[dtype]).newbyteorder("<")).reshape(shape)
    texts, at = [], 0
    while at < len(data):
        if at + 4 > len(data) or at + 4 + (size := struct.unpack_from("<I", data, at)[0]) > len(data):
            raise UserError(f"{where}: a text ends behind the tensor's bytes")
        texts.append(_text(data[at + 4 : at + 4 + size], where))
        at += 4 + size
    if len(texts) != count:
        raise UserError(f"{where}: {len(texts)} texts, its shape asks for {count}")
    return texts


def _from_json(data: Any, dtype: str, shape: list[int], count: int, where: str) -> Any:
    if not isinstance(data, list):
        raise UserError(f"{where}: has neither a list `data` nor a parameter binary_data_size")
    flat = [one for row in data for one in (row if isinstance(row, list) else [row])]
    if len(flat) != count:
        raise UserError(f"{where}: {len(flat)} values, its shape asks for {count}")
    if dtype == "BYTES":
        if any(one is not None and not isinstance(one, str) for one in flat):
            raise UserError(f"{where}: a value is no text")
        return flat
    kind = np.dtype(NUMPY[dtype]).kind
    if any(type(one) not in JSON_TYPES[kind] for one in flat):
        raise UserError(f"{where}: a value is no {dtype}")
    try:
        # A number beyond the type becomes infinite, which is refused with the rows.
        with np.errstate(over="ignore"):
            return np.array(flat, NUMPY[dtype]).reshape(shape)
    except OverflowError:
        raise UserError(f"{where}: a value is no {dtype}") from None


def _text(data: bytes, where: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise UserError(f"{where}: a text is not UTF-8") from None


def response(
    model: str, version: str, request: Request, values: Mapping[str, np.ndarray], parameters: Mapping[str, str] | None = None
) -> tuple[bytes, dict[str, str]]:
    """The body and headers of the answer.

    Args:
        values: output name -> values, [B] float32.
        parameters: `parameters` of the answer, such as the arm.
    """
    tensors, binary = [], b""
    for name, as_binary in request.outputs:
        value = np.ascontiguousarray(values[name], "<f4")
        tensor: dict[str, Any] = {"name": name, "datatype": "FP32", "shape": [len(value)]}
        if as_binary:
            tensor["parameters"] = {"binary_data_size": value.nbytes}
            binary += value.tobytes()
        else:
            tensor["data"] = value.tolist()
        tensors.append(tensor)
    tree: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": tensors}
    if parameters:
        tree["parameters"] = dict(parameters)
    if request.id is not None:
        tree["id"] = request.id
    head = format_json(tree).encode()
    if not any(as_binary for _, as_binary in request.outputs):
        return head, {"content-type": "application/json"}
    return head + binary, {"content-type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
