"""Rules of the repository: architecture, sizes, what an import loads, what every file says."""

import ast
import functools
import graphlib
import inspect
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


# --- the architecture: each folder imports only what is below it ---------------------------------

# From the bottom up. A file may import from folders below its own and from its own folder.
FLOORS = [["errors", "context"], ["kernels"], ["engine"], ["ops"], ["nn"], ["optim"], ["data"],
          ["models"], ["train"], ["plots"], ["report"], ["study"], ["cli"], ["__main__"]]
HEIGHT = {name: height for height, names in enumerate(FLOORS) for name in names}
NOT_DIRECTLY = {"models": {"kernels"}}
OUTSIDE = {"numpy"}                   # the models and everything below import no other library
LIBRARIES = {"kernels": {"numba", "llvmlite", "cupy"}}


def module_of(path):
    """The dotted name of a file: ``scratchgen.ops.conv``, ``benchmarks.timing``."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[0] == "kernels":
        parts.insert(0, "scratchgen")
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in EVERYTHING}


@functools.cache
def imports(path):
    """(modules of this project, libraries outside) that a file imports, anywhere in it."""
    inside, outside = set(), set()
    package = module_of(path).split(".")
    package = package if path.name == "__init__.py" else package[:-1]
    tree = parse(path)
    for node in ast.walk(tree):        # what only a type checker reads is no import
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[:len(package) - node.level + 1] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            named = [f"{base}.{a.name}" for a in node.names]
            names = [name if name in MODULES else base for name in named]
        else:
            continue
        for name in names:
            if name.split(".")[0] in ("scratchgen", "benchmarks", "tests"):
                inside.add(name)
            elif name.split(".")[0] not in sys.stdlib_module_names:
                outside.add(name.split(".")[0])
    return inside, outside


def floor_of(module):
    """The folder of the package that a module lies in; "scratchgen" for the package itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


@pytest.mark.parametrize("path", SOURCES, ids=short)
def test_each_folder_imports_only_what_is_below(path):
    name = floor_of(module_of(path))
    if name == "scratchgen":          # the package itself publishes names of every folder
        return
    assert name in HEIGHT, f"{short(path)}: add its folder to FLOORS"
    inside, outside = imports(path)
    for other in sorted({floor_of(module) for module in inside} - {name}):
        if other == "scratchgen":
            assert HEIGHT[name] > HEIGHT["models"], f"{short(path)} imports the whole package"
            continue
        assert HEIGHT[other] < HEIGHT[name], f"{short(path)} imports {other}, which is above"
        assert other not in NOT_DIRECTLY.get(name, ()), f"{short(path)} imports {other}"
    if HEIGHT[name] <= HEIGHT["models"] and name != "data":
        assert outside <= OUTSIDE | LIBRARIES.get(name, set()), f"{short(path)} imports {outside}"


def cycle_in(graph):
    """A cycle of the graph {node: successors} as a list of nodes, None if it has none."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return None


def test_no_circle_of_imports_between_files():
    """A package's ``__init__`` counts as a file; importing its submodule does not import it."""
    graph = {}
    for module, path in MODULES.items():
        inside = {name for name in imports(path)[0] if name in MODULES and name != module}
        # Importing the package itself for a submodule's sake is no dependency on its contents.
        graph[module] = {name for name in inside if not module.startswith(f"{name}.")}
    assert cycle_in({"a": {"b"}, "b": {"c"}, "c": {"a"}}) is not None
    assert cycle_in(graph) is None


def test_kernels_know_arrays_only():
    for path in (ROOT / "kernels").glob("*.py"):
        inside, outside = imports(path)
        assert {floor_of(m) for m in inside} <= {"kernels", "errors", "context"}, short(path)
        assert outside <= OUTSIDE | LIBRARIES["kernels"], short(path)
        assert "Tensor" not in {n.id for n in ast.walk(parse(path)) if isinstance(n, ast.Name)}


def test_only_the_compiler_imports_numba_and_only_the_device_cupy():
    for library, owner in (("numba", "kernels/compiler.py"), ("cupy", "kernels/gpu.py")):
        assert [short(path) for path in SOURCES if library in imports(path)[1]] == [owner]


def test_the_backward_pass_names_no_op():
    from scratchgen.ops.op import OPS
    tree = parse(PACKAGE / "engine" / "backward.py")
    names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    assert not names & {op.__name__ for op in OPS.values()}


# --- what an import loads ------------------------------------------------------------------------

HEAVY = ["numba", "cupy", "matplotlib", "typer", "rich", "safetensors", "torch", "jax", "tomli_w",
         "jinja2", "platformdirs"]
MEASURE = """
import json, sys, time
import numpy
t = time.perf_counter()
import scratchgen
seconds = time.perf_counter() - t
print(json.dumps([seconds, [n for n in sys.argv[1:] if n in sys.modules], dir(scratchgen)]))
"""


def fresh_import(bytecode):
    """What MEASURE prints; ``bytecode``: the folder that Python keeps compiled modules in."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": bytecode,
                   "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", MEASURE, *HEAVY], env=environment, text=True,
                          capture_output=True, check=True, timeout=60)
    return json.loads(done.stdout)


def test_import_is_quick_and_loads_no_heavy_library(tmp_path):
    """Less than 0.2 s over NumPy's own import: the median of five, after one that compiles the
    modules to bytecode (as an installation does)."""
    fresh_import(str(tmp_path))
    seconds, loaded, names = zip(*(fresh_import(str(tmp_path)) for _ in range(5)), strict=True)
    assert loaded == ([],) * 5
    assert {"tensor", "exp", "conv2d", "nn", "gradcheck"} <= set(names[0])
    assert statistics.median(seconds) < 0.2


def test_importing_the_gradient_check_leaves_its_function_in_place():
    code = ("import scratchgen.study.gradient_check, scratchgen as sg; "
            "assert callable(sg.gradcheck) and issubclass(sg.GradientError, AssertionError); "
            "assert 'numba' not in __import__('sys').modules")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_everything_announced_is_there():
    import scratchgen as sg
    from scratchgen.ops.op import OPS
    lazy = set(sg.LAZY)
    assert lazy <= set(sg.__all__)
    for name in OPS:                   # a function of its own, with hints, in a file of ops/
        function = getattr(sg, name)
        assert inspect.isfunction(function) and function.__module__.startswith("scratchgen.ops.")
        assert "return" in function.__annotations__ or name == "where", name
    assert set(OPS) <= set(sg.__all__) and len(sg.__all__) == len(set(sg.__all__))
    for name in set(sg.__all__) - lazy:
        assert getattr(sg, name) is not None
    with pytest.raises(AttributeError, match="expp"):
        sg.expp  # noqa: B018  (the look-up itself)


# --- sizes ---------------------------------------------------------------------------------------

LARGEST = {"scratchgen/engine/tensor.py": 200, "scratchgen/engine/backward.py": 150,
           "scratchgen/ops/*.py": 300, "kernels/*.py": 250, "scratchgen/models/**/*.py": 200}
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


ENGINE = [p for p in SOURCES if floor_of(module_of(p)) in ("engine", "ops", "nn", "optim", "study")]


@pytest.mark.parametrize("path", ENGINE, ids=short)
def test_every_public_function_has_a_docstring(path):
    """Functions of modules and methods of classes; a rule of an op is explained by the op."""
    tree = parse(path)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and "overload" in map(ast.unparse,
                                                                   node.decorator_list):
            continue
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
