"""The locks and the triple's rule."""

import re


def _lock(root, name):
    lines = (root / "requirements" / f"{name}.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_the_locks_differ_in_fbgemm_alone(request):
    cpu, cuda = (_lock(request.config.rootpath, name) for name in ("cpu", "cuda"))
    assert set(cpu) ^ set(cuda) == {"fbgemm-gpu-cpu==1.8.0", "fbgemm-gpu==1.8.0"}


def test_the_locks_are_flat_and_exact(request):
    # pip installs what a constraints file includes: a `-r` here once brought in a second fbgemm.
    for name in ("cpu", "cuda"):
        for line in _lock(request.config.rootpath, name):
            assert re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.]+", line), line


def test_fbgemm_and_torchrec_go_with_torch(request):
    pins = dict(line.split("==") for line in _lock(request.config.rootpath, "cpu"))
    minor = int(pins["torch"].split(".")[1])
    assert [int(pins[name].split(".")[1]) for name in ("torchrec", "fbgemm-gpu-cpu")] == [minor - 5, minor - 5]
