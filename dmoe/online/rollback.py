"""Manual rollback to an earlier window: its checkpoint becomes the newest, and the pointer names its version. It needs no torch."""

import os

from dmoe.checkpoint.index import Index, read_index, refuse, verify_checkpoint, write_index
from dmoe.errors import UserError
from dmoe.online.ledger import Ledger, committed
from dmoe.online.versions import PublishedVersions
from dmoe.storage.lock import take


def roll_back(run: str, window: int, publish: str = "") -> str:
    """Undoes the windows after `window`. Their files count as used, so they are not trained again.

    Args:
        publish: folder of published versions, if any; its pointer is moved to the newest version of this window or of an earlier one that
            was not undone.

    Returns:
        a line that says what was done.

    Raises:
        UserError: the run is active, or the checkpoint of the window was removed.
    """
    try:
        lock = take(run)
    except BlockingIOError:
        raise UserError(f"{run}: is going on; stop it first (SIGTERM)") from None
    try:
        return _back(run, window, publish)
    finally:
        os.close(lock)


def _back(run: str, window: int, publish: str) -> str:
    kept = list(committed(run))
    if not kept:
        raise UserError(f"{run}: no run of dmoe online there (no checkpoint with a ledger)")
    ledger = Ledger(run, kept[0][1])
    good = [line for line in ledger.good() if line["window"] <= window]
    step = good[-1]["step"] if good else 0
    chosen = next(((folder, state) for folder, state in kept if read_index(folder).progress["step"] == step), None)
    if chosen is None:
        steps = {read_index(folder).progress["step"] for folder, _ in kept}
        windows = ", ".join(str(line["window"]) for line in ledger.good() if line["step"] in steps) or "none"
        raise UserError(f"--to {window}: no checkpoint of that window is kept (train.checkpoint.keep); there are those of {windows}")
    folder, state = chosen
    undone = [line["window"] for line in ledger.good() if line["window"] > window]
    if undone:
        index = verify_checkpoint(folder)
        note = f"rolled back to window {window} by hand"
        ledger.add({"window": ledger.window, "state": "rolled back", "undoes": undone, "rows": 0, "notes": [note]})
        progress = index.progress | {"online": dict(ledger.state(state["vocabulary"]))}
        # The chosen checkpoint is changed before later ones are refused: if this is killed in between, the run is unchanged.
        write_index(folder, Index(index.tables, index.pieces, index.files, progress))
        for later, _ in kept:
            if read_index(later).progress["step"] > step:
                refuse(later)
    version = ""
    if publish:
        version = PublishedVersions(publish).back_to([line["window"] for line in good])
        version = f"; {publish}/current names version {version}" if version else f"; {publish} has no version of that window or before"
    return f"the model is that of window {good[-1]['window'] if good else 0}, step {step:,}; {len(undone)} windows undone{version}"
