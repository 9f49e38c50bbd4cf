"""The README's example prints what the README says, and what it names exists."""

import contextlib
import io
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_prints_what_the_readme_shows():
    program = re.search(r"```python\n(.*?)```", README, re.DOTALL).group(1)
    shown = re.search(r"```text\n(.*?)```", README, re.DOTALL).group(1)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(program, "README.md", "exec"), {})
    assert printed.getvalue().strip() == shown.strip()


@pytest.mark.parametrize("path", sorted(set(re.findall(
    r"(?:`|\()((?:scratchgen|kernels|docs|benchmarks|tests)/[\w./-]+)(?:`|\))", README))))
def test_files_named_in_the_readme_exist(path):
    assert (ROOT / path).exists()


def test_commands_named_in_the_readme_exist():
    targets = set(re.findall(r"^    make (\w+)", README, re.MULTILINE))
    assert targets >= {"demo", "test"}
    makefile = (ROOT / "Makefile").read_text()
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
