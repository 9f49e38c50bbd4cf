"""The house rules: floors, sizes, what an import loads, and what every file says."""

import ast
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "scratchgen"
SOURCES = sorted([*PACKAGE.rglob("*.py"), *(ROOT / "kernels").glob("*.py")])
EVERYTHING = sorted(p for folder in (PACKAGE, ROOT / "kernels", ROOT / "tests", ROOT / "benchmarks")
                    for p in folder.rglob("*.py"))


def short(path):
    return str(path.relative_to(ROOT))


def parse(path):
    return ast.parse(path.read_text(encoding="utf-8"))


# --- the floors: each imports only what is below it ----------------------------------------------

# From the ground up. A file may import files on floors below, and its own floor.
FLOORS = [["errors", "context", "other_names"], ["kernels"],
          ["backend", "memory", "capture", "random"],
          ["engine", "tensor", "in_place", "copies", "numpy_calls"], ["ops", "methods"],
          ["gradient_check"], ["parameters"], ["module", "initialisers", "schedules"],
          ["nn", "optim"], ["data"], ["models"],
          ["config", "runs", "feed", "train", "mosaic", "non_finite",
           "places"],
          ["plots", "lecture", "in_words", "warmup"], ["report"],
          ["display", "terminal", "cli", "demo", "__main__"]]
HEIGHT = {name: height for height, names in enumerate(FLOORS) for name in names}
NOT_DIRECTLY = {"models": {"backend", "kernels"}, "engine": {"ops", "tensor", "errors"},
                "tensor": {"ops", "backend"}, "train": {"kernels"}}
OUTSIDE = {"numpy"}                   # the engine and everything below import no other library
LIBRARIES = {"kernels": {"numba", "llvmlite", "cupy"}}


def imports(path):
    """(modules of this package, libraries outside) that a file imports, anywhere in it."""
    inside, outside = set(), set()
    package = ["scratchgen", *path.relative_to(ROOT).with_suffix("").parts[:-1]]
    if package[1:2] == ["scratchgen"]:
        package.pop(0)
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[:len(package) - node.level + 1] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{base}.{a.name}" for a in node.names] if base == "scratchgen" else [base]
        else:
            continue
        for name in names:
            head, *rest = name.split(".")
            if head == "scratchgen":
                inside.add(rest[0] if rest else "__init__")
            elif head not in sys.stdlib_module_names:
                outside.add(head)
    return inside, outside


def floor_of(path):
    part = path.relative_to(ROOT).parts
    name = part[0] if part[0] == "kernels" else part[1]
    return name.removesuffix(".py")


@pytest.mark.parametrize("path", SOURCES, ids=short)
def test_each_floor_imports_only_what_is_below(path):
    name = floor_of(path)
    if name == "__init__":            # the package's front door opens on every floor
        return
    assert name in HEIGHT, f"{short(path)}: give it a floor in FLOORS"
    inside, outside = imports(path)
    for other in inside - {name}:
        if other in ("__init__", "__version__"):
            assert HEIGHT[name] > HEIGHT["ops"], f"{short(path)} imports the whole package"
            continue
        assert HEIGHT[other] <= HEIGHT[name], f"{short(path)} imports {other}, a floor above"
        assert other not in NOT_DIRECTLY.get(name, ()), f"{short(path)} imports {other}"
    if HEIGHT[name] <= HEIGHT["models"] and name != "data":
        assert outside <= OUTSIDE | LIBRARIES.get(name, set()), f"{short(path)} imports {outside}"


def test_kernels_know_arrays_only():
    for path in (ROOT / "kernels").glob("*.py"):
        inside, outside = imports(path)
        assert inside <= {"kernels", "errors", "context"}, short(path)
        assert outside <= OUTSIDE | LIBRARIES["kernels"], short(path)
        assert "Tensor" not in {n.id for n in ast.walk(parse(path)) if isinstance(n, ast.Name)}


def test_only_the_compiler_imports_numba_and_only_the_device_cupy():
    for library, owner in (("numba", "kernels/compiler.py"), ("cupy", "kernels/gpu.py")):
        assert [short(path) for path in SOURCES if library in imports(path)[1]] == [owner]


def test_the_engine_names_no_op():
    from scratchgen.ops.op import OPS
    names = {n.id for n in ast.walk(parse(PACKAGE / "engine.py")) if isinstance(n, ast.Name)}
    assert not names & {op.__name__ for op in OPS.values()}


# --- what an import loads ------------------------------------------------------------------------

HEAVY = ["numba", "cupy", "matplotlib", "typer", "rich", "safetensors", "torch", "jax", "tomli_w"]
MEASURE = """
import json, sys, time
import numpy
t = time.perf_counter()
import scratchgen
seconds = time.perf_counter() - t
print(json.dumps([seconds, [n for n in sys.argv[1:] if n in sys.modules], dir(scratchgen)]))
"""


def fresh_import():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(
        [str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", MEASURE, *HEAVY], env=environment, text=True,
                          capture_output=True, check=True, timeout=60)
    return json.loads(done.stdout)


def test_import_is_quick_and_loads_no_heavy_library():
    """Less than 0.2 s over NumPy's own import: the median of five, the first of them unmeasured."""
    fresh_import()
    seconds, loaded, names = zip(*(fresh_import() for _ in range(5)), strict=True)
    assert loaded == ([],) * 5
    assert {"tensor", "exp", "conv2d", "nn", "gradcheck"} <= set(names[0])
    assert statistics.median(seconds) < 0.2


def test_importing_the_gradient_check_leaves_its_function_in_place():
    code = ("import scratchgen.gradient_check, scratchgen as sg; "
            "assert callable(sg.gradcheck) and issubclass(sg.GradientError, AssertionError); "
            "assert 'numba' not in __import__('sys').modules")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_everything_announced_is_there():
    import scratchgen as sg
    from scratchgen.ops.op import OPS
    lazy = set(sg.LAZY)
    assert set(OPS) <= set(sg.__all__) and len(sg.__all__) == len(set(sg.__all__))
    for name in set(sg.__all__) - lazy:
        assert getattr(sg, name) is not None
    with pytest.raises(AttributeError, match="expp"):
        sg.expp  # noqa: B018  (the look-up itself)


# --- sizes ---------------------------------------------------------------------------------------

LARGEST = {"scratchgen/tensor.py": 200, "scratchgen/engine.py": 150, "scratchgen/ops/*.py": 300,
           "kernels/*.py": 250, "scratchgen/models/*.py": 200}
LONGEST_FUNCTION = 40
WIDEST = 100


def code_lines(tree):
    """The numbers of the lines with code: no docstrings, comments or blank lines."""
    lines = set()
    skipped = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(
                node.value.value, str):
            skipped |= set(range(node.lineno, node.end_lineno + 1))
    for node in ast.walk(tree):
        if isinstance(node, (ast.stmt, ast.expr, ast.arg, ast.keyword, ast.alias, ast.match_case,
                             ast.ExceptHandler)) and hasattr(node, "lineno"):
            lines |= {node.lineno, node.end_lineno}
    return lines - skipped


@pytest.mark.parametrize("pattern", LARGEST)
def test_files_stay_small(pattern):
    paths = sorted(ROOT.glob(pattern))
    assert paths
    for path in paths:
        assert len(code_lines(parse(path))) <= LARGEST[pattern], short(path)


@pytest.mark.parametrize("path", SOURCES, ids=short)
def test_functions_stay_short(path):
    for node in ast.walk(parse(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert len(code_lines(node)) <= LONGEST_FUNCTION, f"{short(path)}: {node.name}"


@pytest.mark.parametrize("path", EVERYTHING, ids=short)
def test_lines_stay_narrow(path):
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        assert len(line) <= WIDEST and line == line.rstrip(), f"{short(path)}:{number}"


# --- what files say ------------------------------------------------------------------------------

def test_no_file_is_named_for_nothing():
    for path in EVERYTHING:
        assert path.stem not in {"utils", "util", "helpers", "misc", "common"}, short(path)


@pytest.mark.parametrize("path", EVERYTHING, ids=short)
def test_every_file_says_what_it_is(path):
    assert ast.get_docstring(parse(path)) or path.stat().st_size == 0, short(path)


def test_every_public_function_of_the_package_has_a_docstring():
    import scratchgen as sg
    for name in sg.__all__:
        if name not in ("plots",):    # drawn with matplotlib, which an import here would load
            assert (getattr(sg, name).__doc__ or "").strip(), name


ENGINE = [p for p in SOURCES if p.parent == PACKAGE / "ops"] + [PACKAGE / f"{name}.py" for name in (
    "engine", "tensor", "backend", "random", "gradient_check", "nn", "optim")]


@pytest.mark.parametrize("path", ENGINE, ids=short)
def test_every_public_function_has_a_docstring(path):
    """Functions of modules and methods of classes; a rule of an op is explained by the op."""
    tree = parse(path)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            few = len(code_lines(node)) <= 5          # a helper of a few lines may speak for itself
            assert ast.get_docstring(node) or few and node.name not in public(), node.name
        if isinstance(node, ast.ClassDef):
            assert ast.get_docstring(node), node.name


def public():
    import scratchgen as sg
    return set(sg.__all__)


# Spelled apart, so that this file does not name them either.
MACHINE_PATHS = re.compile("|".join(["/" + "work" + r"\b", "/" + r"tmp\b", "/" + "root" + "/"]))


def test_no_paths_of_a_machine():
    tracked = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, text=True,
                             capture_output=True)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    seen = 0
    for name in tracked.stdout.splitlines():
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".cu", ".yml", ""} and path.is_file():
            found = MACHINE_PATHS.search(path.read_text(encoding="utf-8"))
            assert not found, f"{name}: {found.group()}"
            seen += 1
    assert seen > 30
