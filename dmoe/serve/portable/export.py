"""Adds files for another runtime to a scorer, compares their answers with the scorer's, and records files and differences in scorer.json.

Shapes: B rows.
"""

import os
from collections.abc import Callable
from glob import escape as glob_escape
from glob import glob
from importlib.metadata import version
from importlib.util import find_spec
from typing import Literal

import numpy as np
import torch

from dmoe.data.dataset.files import file_sha256
from dmoe.data.dataset.reading.bags import Bags
from dmoe.errors import UserError, one_line
from dmoe.finite import require_finite
from dmoe.serve.encoding.random_rows import draw
from dmoe.serve.export.delta import DELTA, form_of
from dmoe.serve.export.format import AOTI, FILE, ONNX, ONNX_DENSE, Parity, read_scorer_file, write_scorer_file
from dmoe.serve.onnx_engine import DENSE, EMBEDDINGS, IDS, LOGIT, lengths_name, open_session, values_name
from dmoe.serve.portable import aoti_file, onnx_files, triton
from dmoe.serve.scorer import Scorer
from dmoe.storage.paths import PATHS, join, write_text

Format = Literal["scorer", "onnx", "aoti", "triton"]
BOUND = 1e-4
"""Largest allowed difference of a logit, because runtimes add numbers in different orders. Models trained in bf16 are exported in fp32,
which is more exact, so their difference is not checked."""
BATCHES = (1, 2, 317)


def check_format(format: str, output: str, name: str = "dmoe") -> None:
    """Checks, before anything is written, that this machine can write the format to `output` under the name.

    Raises:
        UserError: it cannot.
    """
    if format == "scorer":
        return
    if "://" in output:
        raise UserError(f"--output {output}: --format {format} is written to a local folder; copy that folder there")
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise UserError(f"--name {one_line(name)}: a model of Triton's is a folder of that name, so that it has no /")
    if format != "aoti" and (absent := missing_packages()):
        raise UserError(f"--format {format}: needs {', '.join(absent)}: install dmoe[onnx]")
    if format == "aoti":
        aoti_file.check_compiler()


def missing_packages() -> list[str]:
    """The packages of dmoe[onnx] that are not installed."""
    return [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]


def scorer_folder(format: str, output: str, name: str) -> str:
    """The folder to write the scorer to. For Triton, this is the version folder of the model."""
    return join(output, name, triton.VERSION_FOLDER) if format == "triton" else output


def add_format(folder: str, format: Format, name: str, rows: int, products: Literal["fp32", "int8"] = "fp32") -> dict[str, Parity]:
    """Adds the files of a format to a scorer.

    Args:
        folder: folder of the scorer.
        name: name of the model in Triton.
        rows: smallest number of rows to compare.
        products: number format of matrix products in ONNX files. int8 products are compared too, but may differ.

    Returns:
        file -> its parity, which is also recorded in scorer.json.

    Raises:
        UserError: the answers of a file differ from those of the scorer.
    """
    scorer = Scorer(folder, engine="torch")
    if format == "triton" and not onnx_files.has_whole_graph(scorer.about):
        what = "rows pq" if scorer.about.rows == "pq" else f"model.embedding.sets {scorer.about.model.embedding.sets}"
        raise UserError(f"{folder}: lookups of {what} have no ONNX graph, which --format triton needs; --format onnx has one of the rest")
    written = aoti_file.write_aoti(scorer) if format == "aoti" else onnx_files.write_onnx(scorer, products)
    parities = _note(scorer, written, rows, products)
    if format == "triton":
        write_text(join(folder, "..", "config.pbtxt"), triton.config_of(name, scorer.about))
    return parities


def add_graph(folder: str, before: str = "", rows: int = 500, verify: bool = False) -> None:
    """Adds ONNX files with fp32 products to a scorer.

    Args:
        folder: folder of the scorer.
        before: folder of another scorer. If only weights and ids differ, its graph is reused, which saves several seconds.
        rows: smallest number of rows to compare.
        verify: whether to verify the checksums of the scorer.

    Raises:
        UserError: the answers of a file differ from those of the scorer.
    """
    scorer = Scorer(folder, verify, engine="torch")
    again = before and PATHS.exists(join(before, FILE)) and form_of(read_scorer_file(before)) == form_of(scorer.about)
    _note(scorer, (onnx_files.renew_onnx(before, scorer) if again else []) or onnx_files.write_onnx(scorer), rows)


def complete(folder: str) -> bool:
    """Adds the ONNX files to a scorer before it is served, if it lacks them. Returns whether they were added.

    They are not added if the folder is remote or a delta, if there are deltas beside it (the scorer may be their parent, which must not
    change), or if dmoe[onnx] is not installed.

    Raises:
        UserError: the scorer is damaged.
    """
    beside = glob_escape(os.path.dirname(folder.rstrip("/")) or ".")
    if "://" in folder or not os.path.exists(join(folder, FILE)) or glob(join(beside, "*", DELTA)):
        return False
    if ONNX_DENSE in read_scorer_file(folder).files or missing_packages():
        return False
    add_graph(folder, verify=True)
    return True


def _note(scorer: Scorer, written: list[str], rows: int, products: str = "fp32") -> dict[str, Parity]:
    """Compares files with the scorer, and records them in scorer.json."""
    parities = {one: _compared(scorer, one, max(rows, 1), products) for one in written if one in (ONNX, ONNX_DENSE, AOTI)}
    about = scorer.about
    files = about.files | {one: file_sha256(join(scorer.folder, one)) for one in written}
    write_scorer_file(scorer.folder, about.model_copy(update={"files": files, "portable": about.portable | parities}))
    return parities


def _compared(scorer: Scorer, name: str, rows: int, products: str = "fp32") -> Parity:
    """Compares a file with the scorer on batches of the sizes BATCHES, with random ids and numbers."""
    rng, logits, expected = np.random.default_rng(0), [], []
    run, runtime = _runner(scorer, name)
    done = 0
    while done < rows:
        dense_BI, ids_BF, bags = draw(scorer, next((size for size in BATCHES if done < size), BATCHES[-1]), rng)
        expected.append(scorer.logits(dense_BI, ids_BF, bags).astype(np.float64))
        logits.append(run(dense_BI, ids_BF, bags).astype(np.float64))
        done += len(ids_BF)
    found_B, expected_B = np.concatenate(logits), np.concatenate(expected)
    require_finite(found_B, f"{join(scorer.folder, name)}: the logit")
    logit = float(np.abs(found_B - expected_B).max())
    probability = float(np.abs(_sigmoid(found_B) - _sigmoid(expected_B)).max())
    exact = products == "fp32" and not scorer.about.bf16
    if exact and logit > BOUND * max(1.0, float(np.abs(expected_B).max())):
        raise UserError(f"{join(scorer.folder, name)}: its logits differ from the scorer's by {logit:.2g} on {done:,} rows")
    runtime += ", int8 products" * (products == "int8")
    return Parity(runtime=runtime, rows=done, logit=logit, probability=probability)


def _runner(scorer: Scorer, name: str) -> tuple[Callable[[np.ndarray, np.ndarray, dict[str, Bags]], np.ndarray], str]:
    """Opens a file; returns a function from rows to logits, and the name of the runtime."""
    about, path = scorer.about, join(scorer.folder, name)

    def given(dense_BI: np.ndarray, ids_BF: np.ndarray, bags: dict[str, Bags]) -> dict[str, np.ndarray]:
        found = {DENSE: dense_BI} if about.dense else {}
        if name != ONNX:
            return found | {EMBEDDINGS: torch.cat(scorer.embeddings(ids_BF, bags), -1).numpy()}
        for feature, bag in bags.items():
            found |= {values_name(feature): bag.values.astype(np.int64), lengths_name(feature): bag.lengths}
        return found | {IDS: ids_BF}

    if name == AOTI:
        compiled = torch._inductor.aoti_load_package(path)
        runtime = f"AOTInductor of torch {torch.__version__}, {aoti_file.bound_to()}"
        return lambda *rows: compiled(*map(torch.from_numpy, given(*rows).values()))[1].numpy(), runtime
    session = open_session(path)
    return lambda *rows: session.run([LOGIT], given(*rows))[0], f"onnxruntime {version('onnxruntime')}"


def _sigmoid(logit_B: np.ndarray) -> np.ndarray:
    found: np.ndarray = torch.from_numpy(logit_B).sigmoid().numpy()
    return found
