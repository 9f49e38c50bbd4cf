"""Counts the invalid inputs in the tests, by kind.

Runs the tests listed in KINDS and counts their parametrized cases. A case that runs on several
backends, or with arrays and with tensors, counts once; it counts as refused if all its runs passed.
"""

from collections import defaultdict
from pathlib import Path

TESTS = Path(__file__).parents[1]
KINDS = {
    "commands, options, settings": [
        "test_faults.py::test_arguments", "test_cli.py::test_wrong_input_is_one_clear_line",
        "test_runs.py::test_wrong_values_are_named",
        "test_vae.py::test_settings_that_do_not_fit_are_refused",
        "test_dae.py::test_configurations_that_contradict_themselves"],
    "TOML files": [
        "test_faults.py::test_configuration_files",
        "test_runs.py::test_bad_toml_names_file_and_place"],
    "IDX files": [
        "test_faults.py::test_idx_files",
        "test_data.py::test_a_faulty_file_is_one_sentence_that_names_it"],
    "own images (.npy, .npz, PNG, JPEG)": [
        "test_faults.py::test_own_arrays", "test_faults.py::test_other_own_data",
        "test_own_images.py::test_an_array_that_holds_no_images_is_refused",
        "test_own_images.py::test_a_faulty_file_is_one_sentence_that_names_it",
        "test_own_images.py::test_an_archive_with_wrong_arrays",
        "test_own_images.py::test_a_damaged_png_is_one_sentence",
        "test_own_images.py::test_a_damaged_jpeg_is_one_sentence",
        "test_own_images.py::test_sub_folders_beside_train_and_test",
        "test_resume.py::test_a_path_that_is_not_utf_8_is_refused"],
    "checkpoints": [
        "test_faults.py::test_checkpoints", "test_faults.py::test_checkpoints_that_do_not_fit",
        "test_faults.py::test_checkpoints_with_a_right_checksum_and_wrong_content",
        "test_runs.py::test_flipped_byte_is_noticed", "test_runs.py::test_truncated_checkpoint",
        "test_runs.py::test_foreign_checkpoint"],
    "folders and disks": [
        "test_faults.py::test_folders_in_the_way", "test_faults.py::test_a_read_only_disk",
        "test_faults.py::test_folders_that_cannot_be_written",
        "test_faults.py::test_a_limit_on_file_sizes",
        "test_cli.py::test_names_that_are_no_folder",
        "test_cli.py::test_a_folder_that_is_read_only",
        "test_cli.py::test_a_folder_of_other_files_is_left_alone"],
    "servers of downloads": ["test_download.py::test_a_faulty_server_alone_is_one_sentence"],
    "losses that are no numbers": ["test_faults.py::test_a_loss_that_is_no_number"],
    "shapes and options of ops": [
        "test_op_errors.py::test_wrong_shapes_and_options",
        "test_op_errors.py::test_nothing_to_reduce"],
    "dtypes of ops, and what is no array": [
        "test_op_errors.py::test_wrong_dtypes", "test_op_errors.py::test_mixed_precision",
        "test_op_errors.py::test_what_is_no_array"],
}
# Tests that make several calls in a loop: each call counts as a case.
CALLS = {"test_wrong_shapes_and_options": lambda tests, name: len(tests.SHAPES[name]),
         "test_wrong_dtypes": lambda tests, name: len(tests.DTYPES) + (name in tests.KERNELS)}
SAME_CASE = {"backend", "as_tensors"}     # parameters that do not change the input


class Counter:
    """A pytest plugin that records which cases ran and which failed."""

    def __init__(self, kinds):
        self.kind = {test: kind for kind, tests in kinds.items() for test in tests}
        self.case, self.calls, self.ran, self.failed = {}, {}, set(), set()

    def pytest_collection_modifyitems(self, items):
        for item in items:
            test = f"{item.path.name}::{item.originalname}"
            given = item.callspec.params if hasattr(item, "callspec") else {}
            # By id: not every value is hashable, and each is one object in all its tests.
            case = test, *sorted((k, id(v)) for k, v in given.items() if k not in SAME_CASE)
            self.case[item.nodeid] = case
            calls = CALLS.get(item.originalname)
            self.calls[case] = calls(item.module, given["name"]) if calls else 1

    def pytest_runtest_logreport(self, report):
        case = self.case[report.nodeid]
        if report.failed:
            self.failed.add(case)
        if report.failed or report.when == "call" and not report.skipped:
            self.ran.add(case)

    def counts(self):
        """``{kind: {"cases": …, "refused": …}}`` of the cases that ran and were not skipped."""
        found = defaultdict(lambda: {"cases": 0, "refused": 0})
        for case in self.ran:
            kind = found[self.kind[case[0]]]
            kind["cases"] += self.calls[case]
            kind["refused"] += self.calls[case] * (case not in self.failed)
        return {kind: found[kind] for kind in dict.fromkeys(self.kind.values())}


def count(kinds=KINDS, folder=TESTS):
    """Runs the tests; returns the counts of each kind. RuntimeError if pytest could not run."""
    import pytest

    counter = Counter(kinds)
    status = pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:randomly",
                          *(str(folder / test) for test in counter.kind)], plugins=[counter])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise RuntimeError(f"pytest ended with {status!r}")
    return counter.counts()
