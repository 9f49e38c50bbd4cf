"""SIGKILL at random moments of training; the long form is ``python -m tests.proofs faults``."""

import os
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
kills = pytest.importorskip("tests.proofs.kills")


def test_killed_runs_hold_whole_checkpoints_and_end_in_the_same_bytes():
    counts = kills.kills(6, seed=int(os.environ.get("SCRATCHGEN_SEED", 0)), chain=3)
    assert counts["kills"] == 6 and counts["runs ended in the same bytes"] >= 2


def test_a_disk_that_fills_up_loses_nothing():
    rows = kills.full_disk(attempts=3)
    if rows is None:
        pytest.skip("mounting a small disk takes rights that this user lacks")
    assert any(row["failed"] for row in rows)
