"""Every CUDA kernel compiles for several generations of GPUs, and uses what the table says."""

import json
import types

import pytest
from scratchgen.kernels import cuda, elementwise

from benchmarks import nvrtc
from scratchgen.ops.op import OPS, Elementwise

if nvrtc.library() is None:
    pytest.skip("NVRTC is not installed: pip install nvidia-cuda-nvrtc", allow_module_level=True)

# What a newer compiler may need more than the recorded one.
MORE_REGISTERS = 16
MOST_REGISTERS = 255                  # of a thread


# The families whose tiles take NVRTC several seconds; a few of their kernels are compiled below.
TILES = {"conv2d", "conv2d_backward_w", "gemm"}


@pytest.mark.parametrize("family, architecture", [
    pytest.param(family, a, marks=[pytest.mark.long] * (family in TILES or a != 90))
    for family in nvrtc.FAMILIES for a in nvrtc.ARCHITECTURES])
def test_kernels_compile_and_use_what_is_recorded(family, architecture):
    recorded = json.loads(nvrtc.RECORD.read_text(encoding="utf-8"))[family][str(architecture)]
    found = nvrtc.resources(family, architecture)
    assert set(found) == set(recorded) == {
        e for kernel in cuda.kernels_of(family).values() for e in kernel.instances()}
    for expression, used in found.items():
        allowed = recorded[expression]
        assert used["registers"] <= min(allowed["registers"] + MORE_REGISTERS, MOST_REGISTERS)
        assert used["shared"] <= min(allowed["shared"], nvrtc.MOST_SHARED), expression
        # The tiles were cut for Hopper; before it one of a convolution keeps 96 bytes elsewhere.
        assert used["spills"] <= allowed["spills"] <= (0 if architecture >= 90 else 96), expression


@pytest.mark.parametrize("family", ["dense", "philox", *sorted(TILES)])
def test_kernels_compile_for_the_newest_gpus(family):
    kernels = cuda.kernels_of(family).values()
    names = [e for kernel in kernels for e in kernel.instances()][:6]
    assert nvrtc.newest() >= 90
    nvrtc.compile_code(next(iter(kernels)).code, names, nvrtc.newest())


@pytest.mark.parametrize("part", [0, *(pytest.param(i, marks=pytest.mark.long) for i in (1, 2, 3))])
def test_formulas_become_cuda_c_that_compiles(part):
    """Every elementwise op and rule, its inputs read in each of the ways there are."""
    ways = list(elementwise.READ)
    functions = [function for op in OPS.values() if issubclass(op, Elementwise)
                 for function in [op.forward, *(rule[0] for rule in op.rules if rule)]]
    assert len(functions) > 60
    for number in range(part, len(functions), 4):
        function = functions[number]
        formula = elementwise.Formula(getattr(function, "__wrapped__", function))
        kinds = tuple(ways[(i + number) % len(ways)] for i in range(len(formula.names)))
        kernel = formula.kernel(kinds)
        nvrtc.compile_code(kernel.code, kernel.instances(), 80)


def test_what_does_not_compile_is_an_error_with_its_line():
    with pytest.raises(nvrtc.CompileError, match=r"wrong.cu\(2\): error.*nonsense"):
        nvrtc.compile_code('#line 1 "wrong.cu"\n__global__ void k() {\n    nonsense;\n}\n',
                           ["k"], 80)


def test_the_kernels_for_hopper_are_compiled_by_cupys_nvrtc():
    """As ``Gpu`` compiles them, and the only code in the file is the kernel."""
    cupy = pytest.importorskip("cupy")
    from scratchgen.kernels.gpu import Gpu, entry_name
    kernel = cuda.kernels_of("wgmma")["product"]
    cubin = Gpu.cubin(types.SimpleNamespace(xp=cupy), kernel, "product<128, 6>")
    assert entry_name(cubin) == "_Z7productILi128ELi6EEvPKfS1_PfS1_ibbiii"
    broken = kernel._replace(code=kernel.code.replace("wgmma_wait<0>();", "wgmma_wait();"))
    with pytest.raises(RuntimeError, match="product<128, 6> does not compile"):
        Gpu.cubin(types.SimpleNamespace(xp=cupy), broken, "product<128, 6>")
