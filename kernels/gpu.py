"""The GPU, used through CuPy: arrays, compilation, launches, steps captured as CUDA graphs."""

import contextlib
import hashlib
import os
import pathlib
import re
import tempfile
import threading

import numpy as np

from ..errors import UserError

FOLDER = pathlib.Path(__file__).parent
OLDEST = 75                                            # compute capability 7.5: Turing, 2018
OPTIONS = ("--std=c++17",)


class Gpu:
    """The device on which ``cuda.launch`` runs kernels; ``xp`` is the module CuPy.

    All threads share one non-default stream, so their work runs in the order in which it was
    launched. A capture records on a separate stream, so that other threads can go on.
    """

    def __init__(self):
        cupy = self.xp = import_cupy()
        properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
        self.name, self.processors = properties["name"].decode(), properties["multiProcessorCount"]
        self.capability = properties["major"] * 10 + properties["minor"]
        if self.capability < OLDEST:
            raise UserError(f"the GPU {self.name} has compute capability "
                            f"{self.capability / 10:.1f}, and the kernels need {OLDEST / 10:.1f} "
                            "or more; choose --backend numba")
        self.shared, self.local = cupy.cuda.Stream(non_blocking=True), threading.local()
        self.use_shared_stream()
        self.functions, self.on_compile = {}, lambda name: None

    # --- streams: CuPy's current stream is local to a thread ---

    def use_shared_stream(self):
        """Make the shared stream CuPy's current stream in the calling thread, once per thread."""
        if not hasattr(self.local, "stream"):
            self.local.stream, self.local.captured = self.shared, None
            self.shared.use()

    @property
    def stream(self):
        """The calling thread's stream: the shared one, or the one that it captures."""
        self.use_shared_stream()
        return self.local.stream

    def is_capturing(self):
        """Whether the calling thread is capturing its work."""
        self.use_shared_stream()
        return self.local.captured is not None

    def synchronize(self):
        """Wait until all launched work is done."""
        self.stream.synchronize()

    # --- kernels ---

    def launch(self, kernel, expression, grid, block, args, shared=0):
        """Run a kernel, which is compiled at its first launch."""
        function = self.functions.get((kernel.code, expression))
        if function is None:
            function = self.functions[kernel.code, expression] = self.compiled(kernel, expression)
            if shared:
                function.max_dynamic_shared_size_bytes = shared
        function(grid, block, args, stream=self.stream, shared_mem=shared)

    def compiled(self, kernel, expression):
        """The compiled function, from CuPy's cache on disk if it is there."""
        self.on_compile(expression)
        if kernel.architecture:
            return self.compiled_for(kernel, expression)
        templated = "<" in expression
        code = kernel.code if templated else kernel.code.replace(
            f"__global__ void {kernel.name}(", f'extern "C" __global__ void {kernel.name}(')
        try:
            return self.xp.RawModule(
                code=code, options=OPTIONS,
                name_expressions=(expression,) if templated else None).get_function(expression)
        except self.xp.cuda.compiler.CompileException as error:
            raise RuntimeError(explain(expression, str(error))) from None

    def compiled_for(self, kernel, expression):
        """The function, compiled for the architecture that the kernel names: CuPy would take the
        GPU's, without the instructions that only this one has. Kept in CuPy's folder on disk."""
        key = "\0".join([kernel.code, expression, *OPTIONS, str(self.xp.cuda.nvrtc.getVersion())])
        folder = pathlib.Path(os.environ.get("CUPY_CACHE_DIR") or "~/.cupy/kernel_cache")
        path = folder.expanduser() / (
            f"scratchgen-{hashlib.sha256(key.encode()).hexdigest()[:32]}.cubin")
        if not path.exists():
            cubin = self.cubin(kernel, expression)
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
                file.write(cubin)
            os.replace(file.name, path)                # another process may write the same
        name = entry_name(path.read_bytes())
        return self.xp.RawModule(path=str(path)).get_function(name)

    def cubin(self, kernel, expression):
        """The machine code of one instance, as bytes."""
        nvrtc = self.xp.cuda.nvrtc
        program = nvrtc.createProgram(kernel.code, f"{kernel.name}.cu", (), ())
        try:
            nvrtc.addNameExpression(program, expression)
            nvrtc.compileProgram(program, (*OPTIONS, "-ftz=true", f"-arch={kernel.architecture}"))
            return nvrtc.getCUBIN(program)
        except nvrtc.NVRTCError:
            raise RuntimeError(explain(expression, nvrtc.getProgramLog(program))) from None
        finally:
            nvrtc.destroyProgram(program)

    @contextlib.contextmanager
    def on_compilation(self, callback):
        """Inside, call ``callback(name)`` when a kernel is compiled or read from the cache."""
        before, self.on_compile = self.on_compile, callback
        try:
            yield
        finally:
            self.on_compile = before

    def free_memory(self):
        """Bytes of the GPU's memory that are free."""
        return self.xp.cuda.runtime.memGetInfo()[0]

    # --- captures ---

    @contextlib.contextmanager
    def capturing(self):
        """Inside, the thread's work is captured, not executed; yields the ``CapturedGraph``.

        Memory allocated inside comes from a pool of the graph. An error inside ends the capture
        and is raised unchanged. UserError for a capture inside another one.
        """
        if self.is_capturing():
            raise UserError("a capture begins inside another one: capture the outer step alone")
        cuda = self.xp.cuda
        captured, stream = CapturedGraph(self), cuda.Stream(non_blocking=True)
        try:
            with cuda.using_allocator(captured.pool.malloc):
                self.set_stream(stream, captured)
                stream.begin_capture(cuda.runtime.streamCaptureModeRelaxed)
                try:
                    yield captured
                except BaseException:
                    with contextlib.suppress(Exception):           # raise the first error, not this
                        stream.end_capture()
                    raise
                captured.graph = stream.end_capture()
        except BaseException:
            captured.kept_alive.clear()
            captured.pool.free_all_blocks()
            raise
        finally:
            self.set_stream(self.shared, None)

    def set_stream(self, stream, captured):
        """Make ``stream`` the calling thread's stream; ``captured`` is its graph or None."""
        self.local.stream, self.local.captured = stream, captured
        stream.use()

    @contextlib.contextmanager
    def outside_capture(self):
        """Inside, work runs at once even during a capture: for arrays that outlive the step."""
        before = self.stream, self.local.captured
        try:
            with self.xp.cuda.using_allocator(before[1].outer_allocator):
                self.set_stream(self.shared, None)
                yield
        finally:
            self.set_stream(*before)

    def cached(self, function, *arguments):
        """The cached array function(*arguments), computed outside the capture and kept alive by it.

        An array computed inside the capture would have no values before the first replay, and an
        array that the cache drops would be freed while the graph still reads it.
        """
        if not self.is_capturing():
            return function(*arguments)
        with self.outside_capture():
            array = function(*arguments)
        self.local.captured.kept_alive[id(array)] = array
        return array

    # --- between the host and the GPU ---

    def upload(self, target):
        """The ``Upload`` that copies batches into the array ``target``."""
        return Upload(self, target)

    def copy_to_host(self, array):
        """Start a copy of an array to the host; returns a function that gives the copy when it has
        arrived, before that None."""
        event = self.xp.cuda.Event(disable_timing=True)
        copy = self.pinned(array.shape, array.dtype)
        array.get(stream=self.stream, out=copy, blocking=False)
        event.record(self.stream)
        return lambda: copy if event.done else None

    def pinned(self, shape, dtype):
        """A NumPy array in pinned (page-locked) memory, for asynchronous copies."""
        n = int(np.prod(shape)) * np.dtype(dtype).itemsize
        memory = self.xp.cuda.alloc_pinned_memory(max(n, 1))
        return np.frombuffer(memory, dtype, int(np.prod(shape))).reshape(shape)


class CapturedGraph:
    """A captured step: the graph, its memory pool, and the cached arrays that it reads."""

    def __init__(self, gpu):
        self.gpu, self.pool, self.kept_alive, self.graph = gpu, gpu.xp.cuda.MemoryPool(), {}, None
        self.outer_allocator = gpu.xp.cuda.get_allocator()

    def launch(self):
        self.graph.launch(self.gpu.stream)


class Upload:
    """Copies batches from the host to one array on the GPU, with double buffering.

    Two pinned buffers and two on the GPU alternate. The copy between them runs on a separate
    stream, so it overlaps with the step on the previous batch.
    """

    def __init__(self, gpu, target):
        self.gpu, self.target, self.next_buffer, self.stream = gpu, target, 0, None

    def prepare(self):
        """Allocate the buffers, when the first batch comes from the host.

        The pool may take the memory of ``staged`` from an array that kernels on the main stream
        still read. So the first copies wait for these kernels too: ``consumed`` is recorded here.
        """
        cuda, target = self.gpu.xp.cuda, self.target
        self.stream = cuda.Stream(non_blocking=True)
        self.pinned = [self.gpu.pinned(target.shape, target.dtype) for _ in range(2)]
        self.staged = [self.gpu.xp.empty_like(target) for _ in range(2)]
        self.arrived, self.consumed = ([cuda.Event(disable_timing=True) for _ in range(2)]
                                       for _ in range(2))
        for event in self.consumed:
            event.record(self.gpu.stream)

    def send(self, batch):
        """target[...] = batch (on the GPU or the host), in the order of the main stream; the host
        does not wait."""
        if isinstance(batch, self.gpu.xp.ndarray):
            if batch is not self.target:
                self.gpu.xp.copyto(self.target, batch)
            return
        if self.stream is None:
            self.prepare()
        k, self.next_buffer = self.next_buffer, 1 - self.next_buffer
        self.arrived[k].synchronize()                  # pinned[k] was last read two batches ago
        self.pinned[k][...] = batch
        self.stream.wait_event(self.consumed[k])
        self.staged[k].set(self.pinned[k], stream=self.stream)
        self.arrived[k].record(self.stream)
        self.gpu.stream.wait_event(self.arrived[k])
        self.gpu.xp.copyto(self.target, self.staged[k])
        self.consumed[k].record(self.gpu.stream)


def entry_name(cubin):
    """The mangled name of the only kernel in machine code: its section is ``.text.<name>``."""
    return re.search(rb"\.text\.(\w+)", cubin)[1].decode()


def explain(expression, log):
    """NVRTC's error message, with the source lines that it names."""
    lines = [f"the CUDA kernel {expression} does not compile:"]
    for file, number, message in re.findall(r"(\w+\.cuh?)\((\d+)\): (error.*)", log):
        path = FOLDER / file
        text = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        line = text[int(number) - 1].strip() if int(number) <= len(text) else ""
        lines.append(f"{file}, line {number}: {message}\n    {line}")
    return "\n".join(lines if len(lines) > 1 else [*lines, log])


def import_cupy():
    """CuPy, after a check for a GPU; UserError with what to install or do."""
    try:
        import cupy
    except ImportError as error:
        raise UserError(
            "the backend 'cuda' needs CuPy, and it cannot be imported "
            f"({' '.join(str(error).split())[:200]}): install it with pip install "
            "'scratchgen[cuda13]' ('scratchgen[cuda12]' for a driver older than 580), or choose "
            "--backend numba") from None
    runtime = cupy.cuda.runtime
    try:
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        if "nsufficient" in str(error) and runtime.driverGetVersion() > 0:
            raise UserError(f"the NVIDIA driver is too old for this CuPy ({error}): update it, or "
                            "install 'scratchgen[cuda12]'") from None
        count = 0
    if count == 0:
        raise UserError("the backend 'cuda' needs an NVIDIA GPU with a driver, and none can be "
                        "found here: check with nvidia-smi, or choose --backend numba")
    return cupy
