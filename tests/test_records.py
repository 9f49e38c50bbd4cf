"""The records of benchmarks: how faults are counted and kept, and how tables come into the README.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import readme
from tests.proofs import bad_inputs, faults

ROOT = Path(__file__).parents[1]


# --- faults: several commands, one file ----------------------------------------------------------

@pytest.fixture
def no_work(monkeypatch):
    """The parts without what takes long: each says what it was asked for."""
    monkeypatch.setattr(faults.kills, "kills", lambda count, seed, report: {"kills": count})
    monkeypatch.setattr(faults.kills, "full_disk", lambda report: [{"failed": True}])
    monkeypatch.setattr(faults.bad_inputs, "count", lambda: {"a": {"cases": 3, "refused": 2}})


def test_parts_that_are_not_run_keep_their_result(tmp_path, no_work):
    out = tmp_path / "new" / "faults.json"
    assert faults.main(["--fuzz", "100", "--out", str(out)]) == 0
    (fuzz,) = json.loads(out.read_text()).values()
    assert fuzz["inputs"] >= 100 and fuzz["crashes"] == 0 and set(fuzz["readers"]) == set(
        faults.fuzzing.SHARES)
    assert faults.main(["--kills", "5", "--full-disk", "--seed", "3", "--out", str(out)]) == 0
    assert faults.main(["--bad-inputs", "--out", str(out)]) == 1         # one was not refused
    found = json.loads(out.read_text())
    assert found["fuzz"] == fuzz and found["kills"]["kills"] == 5 and found["kills"]["seed"] == 3
    assert found["full disk"]["runs"] == found["full disk"]["stopped"] == 1
    assert (found["bad inputs"]["cases"], found["bad inputs"]["refused"]) == (3, 2)
    assert faults.main(["--kills", "7", "--out", str(out)]) == 0
    assert json.loads(out.read_text()) == {**found, "kills": {**found["kills"], "kills": 7,
                                                             "seed": 0}}


def test_fewer_do_not_replace_more(tmp_path, no_work, capsys):
    out = tmp_path / "faults.json"
    faults.main(["--kills", "50", "--out", str(out)])
    before = out.read_bytes()
    for wrong in (["--kills", "49"], ["--kills", "49", "--fuzz", "10"], [], ["--kills", "-1"]):
        with pytest.raises(SystemExit) as caught:
            faults.main([*wrong, "--out", str(out)])
        assert caught.value.code == 2 and out.read_bytes() == before
    assert "holds 50 kills, more than 49" in capsys.readouterr().err


def test_a_failure_is_recorded_and_an_impossible_part_is_not(tmp_path, no_work, monkeypatch):
    def lost(*arguments, **options):
        raise AssertionError("the run ended in other bytes")

    out = tmp_path / "faults.json"
    faults.main(["--full-disk", "--out", str(out)])
    before = out.read_bytes()
    monkeypatch.setattr(faults.kills, "full_disk", lambda report: None)    # no right to mount
    assert faults.main(["--full-disk", "--out", str(out)]) == 1 and out.read_bytes() == before
    monkeypatch.setattr(faults.kills, "full_disk", lost)
    monkeypatch.setattr(faults.kills, "kills", lost)
    assert faults.main(["--full-disk", "--kills", "5", "--out", str(out)]) == 1
    found = json.loads(out.read_text())
    assert found["kills"]["failure"] == found["full disk"]["failure"] == (
        "the run ended in other bytes")
    assert readme.table_faults(found).count("**the run ended in other bytes**") == 2


# --- bad inputs, counted from tests --------------------------------------------------------------

def test_the_tests_that_are_counted_exist():
    for tests in bad_inputs.KINDS.values():
        for test in tests:
            file, function = test.split("::")
            assert f"\ndef {function}(" in (ROOT / "tests" / file).read_text(encoding="utf-8"), test
    named = {test.split("::")[1] for tests in bad_inputs.KINDS.values() for test in tests}
    assert set(bad_inputs.CALLS) <= named


COUNTED = '''
import pytest

@pytest.fixture(params=["numpy", "numba"])
def backend(request):
    return request.param

@pytest.mark.parametrize("wrong", [1, [2], {3}, None])
@pytest.mark.parametrize("name", ["a", "b"])
def test_eight(name, wrong, backend):
    assert (name, wrong, backend) != ("b", None, "numba")

def test_one():
    pass

@pytest.mark.skip
def test_skipped():
    assert False

SHAPES = {"a": [1, 2, 3], "b": [4]}

@pytest.mark.parametrize("as_tensors", [False, True])
@pytest.mark.parametrize("name", SHAPES)
def test_wrong_shapes_and_options(name, as_tensors):
    assert name == "a" or not as_tensors
'''


def test_cases_are_counted_once_and_only_if_they_ran(tmp_path):
    """In a process of its own: pytest does not run inside of pytest."""
    (tmp_path / "test_x.py").write_text(COUNTED)
    (tmp_path / "count.py").write_text(
        "import json, pathlib\nfrom tests.proofs import bad_inputs\n"
        "tests = ['eight', 'one', 'skipped']\n"
        "kinds = {'first': [f'test_x.py::test_{name}' for name in tests],\n"
        "         'loops': ['test_x.py::test_wrong_shapes_and_options']}\n"
        "print(json.dumps(bad_inputs.count(kinds, pathlib.Path(__file__).parent)))\n")
    done = subprocess.run([sys.executable, tmp_path / "count.py"], capture_output=True, text=True,
                          cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": ""})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "first": {"cases": 9, "refused": 8}, "loops": {"cases": 4, "refused": 3}}


# --- tables in the README ------------------------------------------------------------------------

PAGES = pytest.mark.parametrize("page", readme.PAGES, ids=lambda page: page.name)


@PAGES
def test_the_tables_are_those_of_the_records(page):
    """After a new measurement: ``python -m benchmarks readme``."""
    text = page.read_text(encoding="utf-8")
    up = len(page.relative_to(ROOT).parts) - 1
    assert readme.updated(text, report=lambda word: None, up=up) == text


@PAGES
def test_every_place_has_a_table(page):
    places = set(re.findall(r"<!-- (\w[\w-]*) -->", page.read_text(encoding="utf-8")))
    assert places and places <= set(readme.TABLES)
    missing = {readme.TABLES[place][0] for place in places
               if not (readme.RESULTS / readme.TABLES[place][0]).exists()}
    assert missing <= {"gpu.json"}                     # which only a GPU can make
    for text in ((ROOT / "README.md").read_text("utf-8"), page.read_text("utf-8")):
        assert not missing or "ompiled and emulated, not yet measured on a" in text


@PAGES
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        assert target.startswith("http") or (page.parent / target).exists(), target


def test_text_between_two_comments_is_replaced():
    text = "a\n<!-- x -->\nold\nlines\n<!-- /x -->\nb <!-- xy -->\n<!-- /xy -->\n"
    new = readme.replace_between(text, "x", "\n| new |\n")
    assert new == text.replace("old\nlines", "| new |")
    assert readme.replace_between(new, "x", "| new |") == new
    for wrong in ("no marker", "<!-- /x -->\n<!-- x -->", "<!-- x -->", text + text):
        with pytest.raises(ValueError, match="once each, in order"):
            readme.replace_between(wrong, "x", "new")


def test_what_has_no_record_or_no_place_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(readme, "RESULTS", tmp_path)
    monkeypatch.setattr(readme, "TABLES", {"none": ("none.json", "readme:table_exact"),
                                           "faults": ("faults.json", "readme:table_faults")})
    (tmp_path / "faults.json").write_text("{}")
    said, text = [], "<!-- none -->\nkept\n<!-- /none -->\n"
    assert readme.updated(text, said.append) == text
    assert len(said) == 1 and "no none.json yet" in said[0]


def test_a_miss_stands_out():
    answer = {"what": "|x|", "exact": 1.0, "found": 1.25, "error": 0.25, "measure": "relative",
              "tolerance": 0.1, "pass": False}
    case = {"case": "some model", "answers": [answer, {**answer, "error": 0.01, "pass": True}]}
    rows = readme.table_exact({"cases": [case]}).splitlines()[2:]
    assert rows == [r"| some model | \|x\| | 1 | 1.25 | **25 %: missed** | 10 % |",
                    r"|  | \|x\| | 1 | 1.25 | 1 % | 10 % |"]
