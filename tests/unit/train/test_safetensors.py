"""Our streamed safetensors files against the safetensors library: each reads what the other wrote."""

import numpy as np
from safetensors.numpy import load_file, save_file

from dmoe.checkpoint.tensors import NUMPY, TensorFile, write_tensors

ARRAYS = {name: (np.arange(24).reshape(4, 6) % 2).astype(np.dtype(form).newbyteorder("=")) for name, form in NUMPY.items()} | {
    "scalar": np.array(2.5, "f4"),
    "none": np.zeros((0, 3), "f4"),
    "odd/name é": np.ones(3, "f2"),
}
DTYPES = {np.dtype(form).newbyteorder("="): name for name, form in NUMPY.items()}


def _same(got, name):
    assert got.dtype == ARRAYS[name].dtype
    assert got.shape == ARRAYS[name].shape
    np.testing.assert_array_equal(got, ARRAYS[name])


def test_the_library_reads_what_we_wrote(tmp_path):
    with open(tmp_path / "a", "wb") as file:
        entries = [(name, DTYPES[array.dtype], array.shape) for name, array in ARRAYS.items()]
        write_tensors(file, entries, ARRAYS.values(), {"by": "dmoe"})
    read = load_file(tmp_path / "a")
    assert read.keys() == ARRAYS.keys()
    for name in ARRAYS:
        _same(read[name], name)


def test_we_read_what_the_library_wrote(tmp_path):
    save_file(ARRAYS, tmp_path / "b", {"by": "safetensors"})
    file = TensorFile(str(tmp_path / "b"))
    assert file.entries.keys() == ARRAYS.keys()
    for name in ARRAYS:
        _same(file.rows(name), name)
