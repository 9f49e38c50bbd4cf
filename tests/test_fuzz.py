"""Every reader on a thousand damaged files: a result or one sentence; see proofs/fuzzing.py."""

import pytest

fuzzing = pytest.importorskip("tests.proofs.fuzzing")


def assert_no_crash(outcome, count):
    assert outcome.crashes == [] and outcome.inputs == count
    assert outcome.accepted + outcome.refused == count and outcome.refused > count // 3


@pytest.mark.parametrize("name", [name for name in fuzzing.SHARES if not name.startswith("check")])
def test_readers(name):
    assert_no_crash(fuzzing.fuzz(name, 1000, seed=11), 1000)


def test_checkpoints():
    outcome = fuzzing.fuzz_checkpoint_bytes(1000, seed=11)
    assert_no_crash(outcome, 1000)
    assert outcome.accepted <= 10                      # those whose damage left the bytes alone


def test_checkpoints_with_a_right_checksum():
    outcome = fuzzing.fuzz_checkpoint_content(60, seed=11)
    assert outcome.crashes == [] and outcome.refused > 10


def test_a_crash_is_reported():
    """The judge itself: wrong kinds of errors and errors of several lines count."""
    outcome = fuzzing.Outcome()

    def wrong(path):
        raise KeyError("w")

    def long(path):
        raise fuzzing.UserError("two\nlines that say something")

    for read in (wrong, long, len):
        fuzzing.judge(outcome, read, "some path", b"")
    assert len(outcome.crashes) == 2 and outcome.accepted == 1 and outcome.inputs == 3


def test_the_damage_is_a_function_of_the_seed():
    whole = bytes(range(256))
    runs = [[fuzzing.damaged(whole, [whole], fuzzing.random.Random(seed)) for seed in range(50)]
            for _ in range(2)]
    assert runs[0] == runs[1] and len(set(runs[0])) > 40
