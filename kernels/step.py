"""The values that change between replays of a captured step, and its losses; see ``capture.py``.

Only a GPU replays steps, so there are no Numba versions.
"""

from .cuda import launch

MOST_NUMBERS = 8
MISSING = {"take_row_numba": "steps are captured on a GPU only",
           "keep_numba": "steps are captured on a GPU only"}


# --- take_row(table, row, current): current = table[row], row += 1 -------------------------------

def take_row_numpy(table, row, current):
    """table (ROWS, W), row (1,), current (W,), all uint64."""
    current[...] = table[int(row[0])]
    row += row.dtype.type(1)


def take_row_cuda(table, row, current):
    launch("step.take_row", 1, 64, table, row, current, current.size)


# --- keep(a, b, c, d, e, f, g, h, row, history): record losses, history[row] = the first W of them

def keep_numpy(a, b, c, d, e, f, g, h, row, history):
    """a … h are arrays of one number, history (ROWS, W), W ≤ 8, row (1,) uint64."""
    for j, number in enumerate((a, b, c, d, e, f, g, h)[:history.shape[1]]):
        history[int(row[0]), j] = number.reshape(())


def keep_cuda(a, b, c, d, e, f, g, h, row, history):
    launch("step.keep", 1, 32, a, b, c, d, e, f, g, h, row, history, history.shape[1])
