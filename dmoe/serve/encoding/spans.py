"""Raw values of rows as arrays, which compiled code can read.

Shapes: B rows, C columns read.
"""

import ctypes
import marshal
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numba import carray, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from dmoe.data.prepare.tokens.byte_words import find, load
from dmoe.processes.compiled import compiled
from dmoe.serve.encoding.quick_rows import NotSimple

ROOM = 32
"""Free bytes after the texts. Compiled code writes an integer as text there, and may read words of eight bytes beyond the last text."""
INTEGER = -1


class Spans(NamedTuple):
    """The values of a batch, which are texts, integers or missing.

    Attributes:
        text: UTF-8 bytes of all texts, and ROOM further bytes.
        first_CB, end_CB: the value of column c in row b is text[first_CB[c, b]:end_CB[c, b]], empty if missing; if the end is INTEGER,
            it is the integer first_CB[c, b].
    """

    text: NDArray[np.uint8]
    first_CB: NDArray[np.int64]
    end_CB: NDArray[np.int64]


def spans_of(rows: pa.Table | Sequence[Mapping[str, Any]], names: Sequence[str]) -> Spans:
    """The values of the named columns.

    Raises:
        NotSimple: a column of a table is missing, or there are other values than texts and integers of 64 bits, or a text is no UTF-8.
    """
    return _of_table(rows, names) if isinstance(rows, pa.Table) else _of_rows(rows, names)


def _of_rows(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Spans:
    # `itemgetter` returns no tuple for one name.
    twice = names if len(names) > 1 else [*names, *names]
    try:
        values = list(map(itemgetter(*twice), rows))
    except KeyError:
        values = [tuple(map(row.get, twice)) for row in rows]
    try:
        # The fastest way from Python objects to bytes: types, lengths and UTF-8, without references to earlier values in version 2.
        data = marshal.dumps(values, 2)
    except ValueError:
        raise NotSimple from None
    text = np.frombuffer(bytearray(data + bytes(ROOM)), np.uint8)
    spans = Spans(text, np.empty((len(names), len(rows)), np.int64), np.empty((len(names), len(rows)), np.int64))
    # Surrogates begin with the byte ED, which is rare.
    if not _read_rows(*spans, len(twice), b"\xed" in data):
        raise NotSimple
    return spans


@compiled
def _four(text: NDArray[np.uint8], at: int) -> np.int64:
    """Four bytes as a little-endian integer."""
    return np.int64(np.int32(load(text, at) & np.uint64(0xFFFFFFFF)))


@compiled
def _has_surrogate(text: NDArray[np.uint8], at: int, end: int) -> bool:
    """Whether the UTF-8 text has a lone surrogate: ED and a byte from A0 on."""
    at = find(text, at, end, np.uint8(0xED))
    while at + 1 < end and text[at + 1] < 0xA0:
        at = find(text, at + 1, end, np.uint8(0xED))
    return at + 1 < end


@compiled
def _read_rows(text: NDArray[np.uint8], first_CB: NDArray[np.int64], end_CB: NDArray[np.int64], width: int, check: bool) -> bool:
    """Reads what `marshal` wrote of a list of tuples: a byte that names the type, and four bytes of a length or an integer.

    Args:
        width: values in a tuple; those after the first C are left out.
        check: whether texts may have surrogates.

    Returns:
        whether there are only values that `Spans` can have.
    """
    at, last = np.int64(5), len(text) - ROOM
    for row in range(first_CB.shape[1]):
        if text[at] != ord("(") or _four(text, at + 1) != width:
            return False
        at += 5
        for column in range(width):
            if at >= last:
                return False
            code, first, end = text[at], np.int64(0), np.int64(0)
            at += 1
            if code == ord("u"):
                first = at + np.int64(4)
                end = first + _four(text, at)
                at = end
                if at > last or (check and _has_surrogate(text, first, end)):
                    return False
            elif code == ord("i"):
                first, end = _four(text, at), np.int64(INTEGER)
                at += 4
            elif code == ord("l"):
                # The number of digits of 15 bits, which is negative for a negative integer.
                count = _four(text, at)
                at += 4
                # The fifth digit has the bits from 60 on.
                if abs(count) > 5 or (abs(count) == 5 and (text[at + 8] > 7 or text[at + 9])):
                    return False
                for place in range(abs(count)):
                    first |= (np.int64(text[at]) | np.int64(text[at + 1]) << 8) << (15 * place)
                    at += 2
                first, end = first if count > 0 else -first, np.int64(INTEGER)
            elif code != ord("N"):
                return False
            if column < len(first_CB):
                first_CB[column, row], end_CB[column, row] = first, end
    return True


def _of_table(rows: pa.Table, names: Sequence[str]) -> Spans:
    place_of = {name: place for place, name in enumerate(rows.column_names)}
    if len(place_of) != rows.num_columns or not place_of.keys() >= set(names):
        raise NotSimple
    places = np.array([place_of[name] for name in names], np.int64)
    batches = rows.to_batches()
    if len(batches) != 1:
        batches = rows.combine_chunks().to_batches()
    if len(batches) != 1:
        # A column of more than 2 GiB of text stays in several chunks.
        raise NotSimple
    # One call gives the addresses of all buffers; a Python object for each costs more than encoding a small table.
    schema, array = batches[0].__arrow_c_array__()
    good, *found = _read_columns(_pointer(array, b"arrow_array"), _pointer(schema, b"arrow_schema"), places, len(rows))
    if good:
        return Spans(*found)
    if not any(pa.types.is_dictionary(kind) for kind in rows.schema.types):
        raise NotSimple
    columns = [one.cast(one.type.value_type) if pa.types.is_dictionary(one.type) else one for one in rows.columns]
    return _of_table(pa.table(columns, rows.column_names), names)


_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_GetPointer", ctypes.pythonapi))


@intrinsic
def _at(context: Any, address: Any) -> Any:
    """An address as a pointer."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), generate


@compiled
def _bytes(address: int, count: int) -> Any:
    return carray(_at(np.int64(address)), count, np.uint8)


@compiled
def _words(address: int, count: int) -> Any:
    return carray(_at(np.int64(address)), count, np.int64)


@compiled
def _integer(address: int, place: int, size: int, signed: bool) -> np.int64:
    """The integer number `place`, of `size` bytes, at an address."""
    if size == 8:
        return _words(address, place + 1)[place]
    if size == 4:
        four = carray(_at(np.int64(address)), place + 1, np.uint32)[place]
        return np.int64(np.int32(four)) if signed else np.int64(four)
    if size == 2:
        two = carray(_at(np.int64(address)), place + 1, np.uint16)[place]
        return np.int64(np.int16(two)) if signed else np.int64(two)
    one = _bytes(address, place + 1)[place]
    return np.int64(np.int8(one)) if signed else np.int64(one)


@compiled
def _size_of(code: int) -> int:
    """Bytes of an integer, or of an offset of texts, by Arrow's format; 0 for other types and for unsigned integers of 64 bits."""
    if code == ord("l") or code == ord("U"):
        return 8
    if code == ord("i") or code == ord("I") or code == ord("u"):
        return 4
    if code == ord("s") or code == ord("S"):
        return 2
    return 1 if code == ord("c") or code == ord("C") else 0


@compiled
def _read_columns(array: int, schema: int, places: NDArray[np.int64], size: int) -> tuple[bool, Any, Any, Any]:
    """Reads a record batch through Arrow's C data interface (https://arrow.apache.org/docs/format/CDataInterface.html).

    Args:
        array, schema: addresses of its structs ArrowArray and ArrowSchema.
        places: the columns to read.
        size: number of rows.

    Returns:
        (whether there are only columns that `Spans` can have, the fields of `Spans`).
    """
    # Fields of ArrowArray: length, null count, offset, buffers, children, addresses of buffers and children, dictionary.
    count, batch = len(places), _words(array, 8)
    children, formats = _words(batch[6], batch[4]), _words(_words(schema, 6)[5], batch[4])
    first_CB, end_CB = np.zeros((count, size), np.int64), np.zeros((count, size), np.int64)
    total, text = np.int64(ROOM), np.empty(0, np.uint8)
    # First the size of the texts, then the values.
    for reads in range(2):
        used = np.int64(0)
        if reads:
            text = np.empty(total, np.uint8)
        for c in range(count):
            column, code = _words(children[places[c]], 8), _bytes(_words(formats[places[c]], 1)[0], 2)
            width = _size_of(code[0])
            # A longer format is another type.
            if width == 0 or code[1] != 0 or column[7] != 0:
                return False, text, first_CB, end_CB
            begin, buffers = batch[2] + column[2], _words(column[5], column[3])
            valid, is_text, signed = buffers[0], code[0] == ord("u") or code[0] == ord("U"), code[0] >= ord("a")
            low = high = np.int64(0)
            if is_text:
                low, high = _integer(buffers[1], begin, width, True), _integer(buffers[1], begin + size, width, True)
            if not reads:
                total += high - low
                continue
            if high > low:
                text[used : used + high - low] = _bytes(buffers[2], high)[low:]
            for row in range(size):
                place = begin + row
                if valid != 0 and not (_bytes(valid, (place >> 3) + 1)[place >> 3] >> (place & 7)) & 1:
                    continue
                if is_text:
                    first_CB[c, row] = used - low + _integer(buffers[1], place, width, True)
                    end_CB[c, row] = used - low + _integer(buffers[1], place + 1, width, True)
                else:
                    first_CB[c, row], end_CB[c, row] = _integer(buffers[1], place, width, signed), INTEGER
            used += high - low
    return True, text, first_CB, end_CB
