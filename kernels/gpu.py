"""The GPU through CuPy: arrays, compilation, launches, and steps captured as graphs."""

import contextlib
import pathlib
import re
import threading

import numpy as np

from ..errors import UserError

FOLDER = pathlib.Path(__file__).parent
OLDEST = 75                                            # compute capability 7.5: Turing, 2018
OPTIONS = ("--std=c++17",)


class Gpu:
    """The device that ``cuda.launch`` launches on; ``xp`` is CuPy.

    All threads share one stream, not CuPy's default one, and whatever they ask for is done in the
    order in which it was asked. A capture records on a stream of its own, so that other threads go
    on meanwhile.
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
        self.enter_thread()
        self.functions, self.on_compile = {}, lambda name: None

    # --- streams: CuPy's current stream is a matter of each thread ---

    def enter_thread(self):
        """Let CuPy's own work in the calling thread go to the shared stream; once a thread."""
        if not hasattr(self.local, "stream"):
            self.local.stream, self.local.recorded = self.shared, None
            self.shared.use()

    @property
    def stream(self):
        """Where the calling thread's work goes: the shared stream, or that of its capture."""
        self.enter_thread()
        return self.local.stream

    def is_capturing(self):
        """Whether the calling thread's work is being recorded."""
        self.enter_thread()
        return self.local.recorded is not None

    def synchronize(self):
        """Wait until all work that was asked for is done."""
        self.stream.synchronize()

    # --- kernels ---

    def launch(self, kernel, expression, grid, block, args):
        """Run a compiled kernel; it is compiled when it is first called."""
        function = self.functions.get((kernel.code, expression))
        if function is None:
            function = self.functions[kernel.code, expression] = self.compiled(kernel, expression)
        function(grid, block, args, stream=self.stream)

    def compiled(self, kernel, expression):
        """The function, from CuPy's cache on disk if it was compiled before."""
        self.on_compile(expression)
        templated = "<" in expression
        code = kernel.code if templated else kernel.code.replace(
            f"__global__ void {kernel.name}(", f'extern "C" __global__ void {kernel.name}(')
        try:
            return self.xp.RawModule(
                code=code, options=OPTIONS,
                name_expressions=(expression,) if templated else None).get_function(expression)
        except self.xp.cuda.compiler.CompileException as error:
            raise RuntimeError(explain(expression, str(error))) from None

    @contextlib.contextmanager
    def watching(self, begins):
        """Inside, ``begins(name)`` is called when a kernel is compiled, or read from the cache."""
        before, self.on_compile = self.on_compile, begins
        try:
            yield
        finally:
            self.on_compile = before

    def free_memory(self):
        """Bytes that nobody uses."""
        return self.xp.cuda.runtime.memGetInfo()[0]

    # --- captures ---

    @contextlib.contextmanager
    def capturing(self):
        """Inside, the thread's work is recorded and not done; yields the Recorded to be launched.

        What is allocated inside comes from a pool that nobody else draws from. An error inside
        ends the capture and arrives as it is. UserError for a capture inside another one.
        """
        if self.is_capturing():
            raise UserError("a capture begins inside another one: capture the outer step alone")
        cuda = self.xp.cuda
        recorded, stream = Recorded(self), cuda.Stream(non_blocking=True)
        try:
            with cuda.using_allocator(recorded.pool.malloc):
                self.switch(stream, recorded)
                stream.begin_capture(cuda.runtime.streamCaptureModeRelaxed)
                try:
                    yield recorded
                except BaseException:
                    with contextlib.suppress(Exception):           # the first error is the cause
                        stream.end_capture()
                    raise
                recorded.graph = stream.end_capture()
        except BaseException:
            recorded.kept.clear()
            recorded.pool.free_all_blocks()
            raise
        finally:
            self.switch(self.shared, None)

    def switch(self, stream, recorded):
        """From now on the calling thread's work goes to ``stream``."""
        self.local.stream, self.local.recorded = stream, recorded
        stream.use()

    @contextlib.contextmanager
    def not_captured(self):
        """Inside, work is done at once even during a capture: for arrays that outlive the step."""
        before = self.stream, self.local.recorded
        try:
            with self.xp.cuda.using_allocator(before[1].allocator_outside):
                self.switch(self.shared, None)
                yield
        finally:
            self.switch(*before)

    def cached(self, function, *arguments):
        """function(*arguments), an array from a cache; made outside of a capture, and held by it.

        An array made inside would have no values before the first replay, and one that the cache
        forgets would be freed while the graph still reads it.
        """
        if not self.is_capturing():
            return function(*arguments)
        with self.not_captured():
            array = function(*arguments)
        self.local.recorded.kept[id(array)] = array
        return array

    # --- between the host and the GPU ---

    def upload(self, mine):
        """The way for batches into the array ``mine``."""
        return Upload(self, mine)

    def copy_out(self, array):
        """Begin to copy an array to the host; returns a function: the copy if it is there, or None.
        """
        event = self.xp.cuda.Event(disable_timing=True)
        copy = self.pinned(array.shape, array.dtype)
        array.get(stream=self.stream, out=copy, blocking=False)
        event.record(self.stream)
        return lambda: copy if event.done else None

    def pinned(self, shape, dtype):
        """A NumPy array in memory that the GPU copies from and to by itself."""
        n = int(np.prod(shape)) * np.dtype(dtype).itemsize
        memory = self.xp.cuda.alloc_pinned_memory(max(n, 1))
        return np.frombuffer(memory, dtype, int(np.prod(shape))).reshape(shape)


class Recorded:
    """A captured step: the graph, the memory it computes in, and what else it reads (``kept``)."""

    def __init__(self, gpu):
        self.gpu, self.pool, self.kept, self.graph = gpu, gpu.xp.cuda.MemoryPool(), {}, None
        self.allocator_outside = gpu.xp.cuda.get_allocator()

    def launch(self):
        self.graph.launch(self.gpu.stream)


class Upload:
    """Batches on their way from the host to one array, the next while the last is computed with.

    Two pinned buffers and two on the GPU, in turn; a stream of its own carries from one to the
    other, so that the copy of a batch overlaps with the step on the batch before.
    """

    def __init__(self, gpu, mine):
        self.gpu, self.mine, self.turn, self.stream = gpu, mine, 0, None

    def prepare(self):
        """Make the buffers, when the first batch comes from the host.

        The memory of ``staged`` may have been another array's a moment ago, which kernels on the
        main stream still read. So the first copy waits for them too: each ``taken`` is recorded.
        """
        cuda, mine = self.gpu.xp.cuda, self.mine
        self.stream = cuda.Stream(non_blocking=True)
        self.pinned = [self.gpu.pinned(mine.shape, mine.dtype) for _ in range(2)]
        self.staged = [self.gpu.xp.empty_like(mine) for _ in range(2)]
        self.arrived, self.taken = ([cuda.Event(disable_timing=True) for _ in range(2)]
                                    for _ in range(2))
        for event in self.taken:
            event.record(self.gpu.stream)

    def send(self, given):
        """mine[...] = given, of the GPU or the host, in the order of the device's own stream; the
        host does not wait."""
        if isinstance(given, self.gpu.xp.ndarray):
            if given is not self.mine:
                self.gpu.xp.copyto(self.mine, given)
            return
        if self.stream is None:
            self.prepare()
        k, self.turn = self.turn, 1 - self.turn
        self.arrived[k].synchronize()                  # the copy out of pinned[k], two batches ago
        self.pinned[k][...] = given
        self.stream.wait_event(self.taken[k])
        self.staged[k].set(self.pinned[k], stream=self.stream)
        self.arrived[k].record(self.stream)
        self.gpu.stream.wait_event(self.arrived[k])
        self.gpu.xp.copyto(self.mine, self.staged[k])
        self.taken[k].record(self.gpu.stream)


def explain(expression, log):
    """NVRTC's message with the source line it means."""
    lines = [f"the CUDA kernel {expression} does not compile:"]
    for file, number, message in re.findall(r"(\w+\.cuh?)\((\d+)\): (error.*)", log):
        path = FOLDER / file
        text = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        line = text[int(number) - 1].strip() if int(number) <= len(text) else ""
        lines.append(f"{file}, line {number}: {message}\n    {line}")
    return "\n".join(lines if len(lines) > 1 else [*lines, log])


def import_cupy():
    """CuPy with a GPU behind it; UserError with what to install or do."""
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
