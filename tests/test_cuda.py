"""The CUDA backend: ops, models, captured steps and runs, against the NumPy backend.

Where there is a GPU these run on it, elsewhere its kernels run emulated (``emulated_gpu``), with
arrays that are as strict as CuPy's.
"""

import gc
import re
import sys
import threading
import weakref

import numpy as np
import pytest
from scratchgen.kernels import cuda
from scratchgen.kernels.gpu import Gpu, explain, import_cupy
from test_ops import ROWS, differentiable, function

import scratchgen as sg
from scratchgen.engine.memory import filled, to_device, to_host
from scratchgen.ops.op import OPS

# --- ops: value, gradient, second derivative -----------------------------------------------------


def derivatives(name, inputs, options, of, order):
    """Value, gradients, and (order 2) the gradients of a directional derivative; NumPy arrays."""
    tensors = [sg.tensor(inputs[i], requires_grad=True) for i in of]
    y = function(name, inputs, options, of)(*tensors)
    weights = np.cos(np.arange(y.size).reshape(y.shape)).astype(y.dtype) + y.dtype.type(1.5)
    found = sg.grad(y, tensors, grad_outputs=to_device(weights), create_graph=order > 1)
    results = [y, *found]
    if order > 1:
        weights = (np.sin(1 + np.arange(g.size)).reshape(g.shape).astype(y.dtype) for g in found)
        along = sum((g * to_device(w)).sum() for g, w in zip(found, weights, strict=True))
        if along.requires_grad:
            results += sg.grad(along, tensors)
    return [to_host(r.data) for r in results]


@pytest.mark.parametrize("name, inputs, options", ROWS)
def test_ops_are_those_of_numpy(name, inputs, options, gpu):
    of = differentiable(name, inputs)
    for dtype, tolerance in ((np.float64, 1e-11), (np.float32, 64 * 2.0**-24)):
        given = [x.astype(dtype) if isinstance(x, np.ndarray) and x.dtype.kind == "f" else x
                 for x in inputs]
        order = 2 if dtype is np.float64 else 1
        with sg.use_backend("numpy"):
            expected = derivatives(name, given, options, of, order)
        with sg.use_backend("cuda"):
            found = derivatives(name, given, options, of, order)
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            assert a.shape == b.shape and a.dtype == b.dtype == dtype
            scale = max(np.abs(b).max(initial=0), 1e-3)
            assert np.abs(a - b).max(initial=0) <= tolerance * scale


@pytest.mark.parametrize("name", ["dense", "conv2d", "softmax", "sum", "add", "bce_with_logits"])
def test_views_in_any_order_are_read_right(name, gpu):
    """Kernels know contiguous arrays alone: what is transposed or has gaps is copied first."""
    _, inputs, options = next(row.values for row in ROWS if row.values[0] == name)
    expected = OPS[name].formula(*inputs, **options)
    with sg.use_backend("cuda"):
        for change in (lambda x: np.array(x, order="F"), lambda x: np.repeat(x, 3, -1)):
            given = [to_device(change(x)) for x in inputs]
            given = [x if x.shape == i.shape else x[..., ::3]
                     for x, i in zip(given, inputs, strict=True)]
            y = OPS[name].apply(*given, **options)
            np.testing.assert_allclose(to_host(y.data), expected, rtol=1e-11, atol=1e-13)


def test_arrays_of_the_host_are_carried_over_and_back(gpu):
    with sg.use_backend("cuda"):
        x = sg.tensor([[1.0, 2.0]], requires_grad=True)
        y = sg.exp(x) * np.float32([[3, 4]])
        y.sum().backward()
        assert isinstance(x.data, gpu.xp.ndarray) and isinstance(y.numpy(), np.ndarray)
        assert float(sg.sum(y)) == pytest.approx(3 * np.e + 4 * np.e**2, rel=1e-6)
        assert x.grad.numpy() == pytest.approx(y.numpy())
        assert "tensor([[1., 2.]]" in repr(x)
    with sg.use_backend("numpy"):                      # what was computed there can be read here
        assert y.numpy().shape == (1, 2)


# --- models: training, plain and captured --------------------------------------------------------

FORMS = {
    "dae": ("dae", {"hidden": 14}), "tied dae": ("dae", {"hidden": 14, "tied": True}),
    "conv dae": ("dae", {"arch": "conv", "hidden": 6, "activation": "relu"}),
    "noisy dae": ("dae", {"hidden": 9, "corruption": "gaussian", "loss": "mse"}),
    "peppered dae": ("dae", {"hidden": 9, "corruption": "salt-and-pepper", "layers": [11]}),
    "vae": ("vae", {"hidden": 15, "latent": 3}),
    "conv vae": ("vae", {"arch": "conv", "channels": [3, 5], "latent": 2, "activation": "relu"}),
    "gaussian vae": ("vae", {"hidden": 9, "latent": 2, "decoder": "learned-variance"}),
    "linear vae": ("vae", {"arch": "linear", "latent": 2, "decoder": "gaussian"}),
    "free vae": ("vae", {"hidden": 9, "latent": 2, "free_bits": 0.1, "beta": 0.5}),
    "iwae": ("vae", {"hidden": 9, "latent": 2, "objective": "iwae", "samples": 3}),
    "gan": ("gan", {"latent": 5, "generator": [9, 11], "discriminator": [12, 7]}),
    "least squares": ("gan", {"latent": 5, "generator": [9], "discriminator": [7],
                              "loss": "least-squares", "noise": 0.3, "input_dropout": 0.2}),
    "dcgan": ("gan", {"arch": "conv", "latent": 5, "channels": 3, "init": "dcgan"}),
    "wgan-gp": ("gan", {"latent": 5, "generator": [9], "discriminator": [7],
                        "loss": "wasserstein", "penalty": "gradient", "d_steps": 2}),
    "r1": ("gan", {"latent": 5, "generator": [9], "discriminator": [7], "penalty": "r1"}),
    "classifier": ("classifier", {"layers": [9], "code": 7, "classes": 3}),
    "conv classifier": ("classifier", {"arch": "conv", "code": 7, "classes": 3}),
    "sdae": ("sdae", {"layers": [9, 7], "levels": [0.2, 0.3], "classes": 3}),
}
KINDS = {"dae": sg.models.DAE, "vae": sg.models.VAE, "gan": sg.models.GAN, "sdae": sg.models.SDAE,
         "classifier": sg.models.Classifier}
SHAPE = (8, 4, 1)


def train(form, backend, steps, captured=False, dtype=np.float64):
    """(losses, weights) after some steps on batches of 6, 6, …, 5."""
    kind, options = FORMS[form]
    with sg.use_backend(backend):
        model = KINDS[kind](KINDS[kind].Config(**options), SHAPE, dtype=dtype)
        streams, losses = sg.Streams(3), []
        optimisers = {name: sg.optim.make("adam", network, 1e-3, schedule=sg.optim.exponential(0.9))
                      for name, network in model.networks().items()}

        def step(x, labels):
            return model.training_step(x, streams, optimisers, labels=labels)

        run = sg.capture(step, lambda: model.recording_key(optimisers)) if captured else step
        for i in range(steps):
            rng = np.random.default_rng(i)
            n = 5 if i == steps - 1 else 6
            x, labels = rng.random((n, *SHAPE)).astype(dtype), rng.integers(0, 3, n)
            terms = run(to_device(x), to_device(labels)) if captured else run(x, labels)
            losses.append({name: float(value) for name, value in terms.items()})
        counters = streams.state()["counters"], [o.steps for o in optimisers.values()]
        weights = {n: to_host(a) for n, a in model.state_dict().items()}
    return losses, weights, counters


@pytest.mark.parametrize("form", FORMS)
def test_training_is_that_of_numpy(form, gpu):
    losses, weights, counters = train(form, "numpy", 4)
    found, theirs, counted = train(form, "cuda", 4)
    assert counted == counters
    for a, b in zip(found, losses, strict=True):
        assert a == pytest.approx(b, rel=1e-9, abs=1e-9)
    for name, w in weights.items():
        np.testing.assert_allclose(theirs[name], w, rtol=1e-8, atol=1e-9, equal_nan=False,
                                   err_msg=name)


@pytest.mark.parametrize("form", FORMS)
def test_a_captured_step_makes_the_same_bytes(form, gpu):
    plain, captured = (train(form, "cuda", 7, captured, np.float32) for captured in (False, True))
    assert captured[0] == plain[0] and captured[2] == plain[2]
    for name, w in plain[1].items():
        assert captured[1][name].tobytes() == w.tobytes(), name


def test_a_capture_is_renewed_when_its_table_is_used_up_or_clocks_are_set(gpu, monkeypatch):
    monkeypatch.setattr(sys.modules["scratchgen.engine.cuda_graph"], "ROWS", 3)
    plain, captured = (train("vae", "cuda", 9, captured) for captured in (False, True))
    assert captured[0] == plain[0]
    with sg.use_backend("cuda"):
        stream = sg.Stream(1, "z")
        draw = sg.capture(lambda: stream.uniform(5))
        seen = [to_host(draw()).copy() for _ in range(3)]
        stream.counter = 0                             # somebody goes back
        assert (to_host(draw()) == seen[0]).all() and stream.counter == 2


def test_kinds_of_steps_that_are_long_past_are_let_go(gpu):
    with sg.use_backend("cuda"):
        stream, kind = sg.Stream(1, "z"), iter(range(100))
        draw = sg.capture(lambda: stream.uniform(3), lambda: next(kind))
        for _ in range(40):
            draw()
    assert len(draw.recordings) == 16 and {k for k, *_ in draw.recordings} == set(range(24, 40))


def test_clipping_is_captured_with_the_rest(gpu):
    def weights(captured):
        with sg.use_backend("cuda"):
            network = sg.nn.Dense(5, 3, "tanh", stream=sg.Stream(0, "w"))
            optimiser = sg.optim.SGD(network, 0.5, momentum=0.9, nesterov=True)
            x, norms = to_device(np.ones((4, 5), np.float32)), []

            def step(x):
                optimiser.zero_grad()
                sg.square(network(x) - 2).sum().backward()
                norm = sg.optim.clip_norm(optimiser, 0.25)
                sg.optim.clip_value(optimiser, 0.2)
                optimiser.step()
                return norm

            run = sg.capture(step) if captured else step
            for _ in range(5):
                norms.append(float(run(x)))
            return norms, to_host(network.w.data)

    plain, captured = weights(False), weights(True)
    assert captured[0] == plain[0] and min(plain[0]) > 0.25
    assert captured[1].tobytes() == plain[1].tobytes()


def test_the_rung_of_a_product_can_be_chosen_and_is_said(gpu):
    from scratchgen.kernels import gemm_chooser, gemm_explain
    a, b = (np.random.default_rng(i).normal(size=(70, 70)) for i in range(2))
    with sg.use_backend("cuda"):
        for rung in ("naive", "tiled", "register_tiled", "split"):
            with sg.use_gemm(rung):
                y = sg.matmul(to_device(a), to_device(b))
                assert f": {rung}, tile" in gemm_explain.explain(70, 70, 70, "float64")
            np.testing.assert_allclose(to_host(y.data), a @ b, rtol=1e-12, atol=1e-12)
    assert "split, tile 32 × 32, sums in" in gemm_explain.explain(100, 500, 784)
    assert "tile 128 × 128, sums in 1, 1024 blocks" in gemm_explain.explain(4096, 4096, 4096)
    with pytest.raises(sg.UserError, match="unknown gemm 'tilde': did you mean 'tiled'"):
        sg.use_gemm("tilde")
    with pytest.raises(sg.UserError, match="unknown convolution 'naïf'"):
        sg.use_convolution("naïf")
    with sg.use_gemm("tensor_core"), pytest.raises(sg.UserError, match="is for float32"):
        gemm_chooser.choose(9, 9, 9, np.float64)


def in_tf32(x):
    """float32 rounded to ten bits of mantissa, ties away from zero."""
    return ((x.view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)


@pytest.mark.parametrize("ta", [False, True])
@pytest.mark.parametrize("tb", [False, True])
def test_tensor_cores_multiply_factors_rounded_to_tf32(ta, tb, gpu):
    """Against the product of the rounded factors, in float64; also with a sum in three shares."""
    from scratchgen.kernels.gemm import product
    for m, n, k, split in ((70, 90, 50, 1), (33, 130, 100, 3), (5, 7, 3, 1)):
        rng = np.random.default_rng(m)
        a, b = (rng.normal(size=size).astype(np.float32) for size in ((m, k), (k, n)))
        expected = in_tf32(a).astype(np.float64) @ in_tf32(b).astype(np.float64)
        with sg.use_backend("cuda"), sg.use_gemm("tensor_core", split=split):
            c = to_device(np.zeros((m, n), np.float32))
            product(to_device(a.T.copy() if ta else a), to_device(b.T.copy() if tb else b), c,
                    ta, tb)
        assert np.abs(to_host(c) - expected).max() <= 3e-6 * np.abs(expected).max()


@pytest.mark.parametrize("tile", [(128, 128), (128, 256)])
@pytest.mark.parametrize("ta", [False, True])
@pytest.mark.parametrize("tb", [False, True])
def test_warpgroups_multiply_factors_rounded_to_tf32(ta, tb, tile, gpu):
    """Sizes that fill no tile, one step along k or several, rows that cannot be read in packs; with
    bias, activation, and a sum to add to."""
    from scratchgen.kernels.dense import ACTIVATIONS
    from scratchgen.kernels.gemm import product
    for m, n, k in ((132, 260, 100), (5, 7, 3), (130, 129, 33)):
        rng = np.random.default_rng(m)
        a, b, bias, before = (rng.normal(size=size).astype(np.float32)
                              for size in ((m, k), (k, n), n, (m, n)))
        expected = in_tf32(a).astype(np.float64) @ in_tf32(b).astype(np.float64) + bias + before
        with sg.use_backend("cuda"), sg.use_gemm("wgmma", tile=tile):
            c = to_device(before)
            product(to_device(a.T.copy() if ta else a), to_device(b.T.copy() if tb else b), c,
                    ta, tb, to_device(bias), ACTIVATIONS["relu"], accumulate=True)
        assert np.abs(to_host(c) - np.maximum(expected, 0)).max() <= 3e-6 * np.abs(expected).max()


def test_warpgroups_are_for_hopper_and_float32(gpu, monkeypatch):
    from scratchgen.kernels.gemm_chooser import choose
    with sg.use_gemm("wgmma"), sg.use_backend("cuda"):
        assert choose(4096, 4096, 4096, "float32").tile == (128, 256)
        assert choose(4096, 784, 4096, "float32").tile == (128, 256)
        assert choose(1024, 1024, 64, "float32").tile == (128, 128)
    with sg.allow_tf32(True), sg.use_backend("cuda"):  # "auto": long sums of many tiles
        rungs = [choose(*shape, "float32").rung for shape in (
            (4096, 784, 4096), (1024, 1024, 512), (1024, 1024, 508), (896, 1024, 4096))]
        assert rungs == ["wgmma", "wgmma", "tensor_core", "tensor_core"]
    with sg.use_gemm("wgmma"), sg.use_backend("cuda"):
        with pytest.raises(sg.UserError, match="'wgmma' is for float32"):
            choose(4, 4, 4, "float64")
        monkeypatch.setattr(gpu, "capability", 80)
        with pytest.raises(sg.UserError, match="compute capability 9.0"):
            choose(4, 4, 4, "float32")
    with pytest.raises(sg.UserError, match="does not split sums"):
        sg.use_gemm("wgmma", split=2)


def test_more_shared_memory_than_the_launch_asks_for_is_an_error(gpu):
    """The dynamic shared memory of a launch is what it asks for, not what the kernel uses."""
    from emulated_gpu.emulator import EmulationError
    from scratchgen.kernels.cuda import launch
    c = gpu.xp.zeros((4, 4), np.float32)
    with pytest.raises(EmulationError, match="takes at most 1024"):
        launch("wgmma.product", 1, 256, c, c, c, c, 0, False, False, 4, 4, 4,
               constants=(128, 6), shared=1024)


# n, h, w, c, o, kernel, stride, padding, dilation
TENSOR_CONVOLUTIONS = [
    (2, 9, 11, 32, 24, (3, 3), (1, 1), (1, 1), (1, 1)), (3, 8, 8, 64, 68, (4, 4), (2, 2), (1, 1),
                                                       (1, 1)),
    (1, 7, 6, 12, 20, (3, 2), (2, 1), (0, 1), (1, 2)), (2, 10, 10, 16, 3, (3, 3), (1, 1), (1, 1),
                                                        (2, 2)),
    (2, 6, 6, 3, 8, (3, 3), (1, 1), (1, 1), (1, 1)), (9, 12, 12, 128, 132, (1, 1), (1, 1), (0, 0),
                                                     (1, 1))]


@pytest.mark.parametrize("case", TENSOR_CONVOLUTIONS, ids=str)
def test_convolutions_on_tensor_cores(case, gpu):
    """All three directions, against the definition in float64 of the factors rounded to TF32, or
    of the factors themselves where there are no tiles for the channels."""
    from scratchgen.kernels import conv2d
    n, h, w, c, o, kernel, *geometry = case
    stride, padding, dilation = geometry
    out = [(size + 2 * p - d * (k - 1) - 1) // s + 1 for size, p, d, k, s in
           zip((h, w), padding, dilation, kernel, stride, strict=True)]
    rng = np.random.default_rng(c)
    x, g = rng.normal(size=(n, h, w, c)), rng.normal(size=(n, *out, o))
    filters, b = rng.normal(size=(kernel[0] * kernel[1] * c, o)), rng.normal(size=o)
    x, g, filters, b = (a.astype(np.float32) for a in (x, g, filters, b))
    turned = np.ascontiguousarray(filters.T)
    calls = [("forward", (x, filters), b, g.shape, c % 4 == 0 and o > 4),
             ("backward_x", (g, turned), np.zeros(c, np.float32), x.shape, o % 4 == 0 and c > 4)]
    for name, factors, bias, shape, rounded in calls:
        exact = [(in_tf32(a) if rounded else a).astype(np.float64) for a in factors]
        expected, found = np.empty(shape), np.empty(shape, np.float32)
        getattr(conv2d, f"{name}_numpy")(*exact, bias.astype(np.float64), 0, kernel, *geometry,
                                         expected)
        with sg.use_backend("cuda"), sg.use_convolution("tensor_core"):
            result = to_device(np.full(shape, np.nan, np.float32))
            getattr(conv2d, f"{name}_cuda")(*(to_device(a) for a in factors), to_device(bias), 0,
                                            kernel, *geometry, result)
            found = to_host(result)
        assert np.abs(found - expected).max() <= 3e-6 * np.abs(expected).max(), name
    rounded = c % 4 == o % 4 == 0
    exact = [(in_tf32(a) if rounded else a).astype(np.float64) for a in (x, g)]
    expected = np.empty(filters.shape)
    conv2d.backward_w_numpy(*exact, kernel, *geometry, expected)
    with sg.use_backend("cuda"), sg.allow_tf32(True):
        result = to_device(np.full(filters.shape, np.nan, np.float32))
        conv2d.backward_w_cuda(to_device(x), to_device(g), kernel, *geometry, result)
        assert np.abs(to_host(result) - expected).max() <= 5e-6 * np.abs(expected).max()


@pytest.mark.parametrize("of_w, index", [(False, 0), (False, 1), (False, 2), (False, 3), (True, 0),
                                         (True, 1)])
def test_every_tile_of_the_convolutions_on_tensor_cores(of_w, index, gpu, monkeypatch):
    from scratchgen.kernels import conv2d_chooser as chooser
    assert (len(chooser.TENSOR_TILES), len(chooser.TENSOR_TILES_OF_W)) == (4, 2)
    tiles = chooser.TENSOR_TILES_OF_W if of_w else chooser.TENSOR_TILES
    monkeypatch.setattr(chooser, "TENSOR_TILES_OF_W" if of_w else "TENSOR_TILES", [tiles[index]])
    for case in ((2, 9, 8, 64, 96, (3, 4), (2, 1), (1, 1), (1, 2)),
                 (3, 8, 9, 96, 160, (1, 1), (1, 1), (0, 0), (1, 1))):
        test_convolutions_on_tensor_cores(case, gpu)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradients_behind_an_activation_by_packs(dtype, gpu, monkeypatch, rng):
    """The kernel for large arrays, on small ones; also in place, and in several shares."""
    from scratchgen.kernels import dense
    monkeypatch.setattr(dense, "PACKS_FROM", 1)
    for n, o in ((3, 8), (130, 12), (300, 264)):
        dy, y = (rng.random((n, o)).astype(dtype) for _ in range(2))
        for activation in range(7):
            expected, found = (np.empty_like(dy), np.empty(o, dtype)), own_pair(gpu, (n, o), dtype)
            dense.activation_backward_numpy(dy, y, activation, *expected)
            with sg.use_backend("cuda"):
                dense.activation_backward_cuda(to_device(dy), to_device(y), activation, *found)
                given = to_device(dy)
                dense.activation_backward_cuda(given, to_device(y), activation, given, found[1])
            for a, b in zip((*found, given), (*expected, expected[0]), strict=True):
                error = np.abs(to_host(a) - b).max()      # beside the largest, as in test_parity.py
                assert error <= 16 * np.finfo(dtype).eps * np.abs(b).max()


def own_pair(gpu, shape, dtype):
    return gpu.xp.empty(shape, dtype), gpu.xp.empty(shape[1], dtype)


def test_on_the_cpu_a_captured_step_is_the_step():
    assert train("vae", "numpy", 3, captured=True) [0] == train("vae", "numpy", 3)[0]


def test_captured_steps_of_the_three_models_are_our_kernels(gpu):
    """What CuPy computes in a step of a multi-layer perceptron: sums of two gradients, no more."""
    if not hasattr(gpu, "launched"):
        pytest.skip("only the emulated GPU lists what a graph consists of")
    for form in ("dae", "vae", "gan"):
        with sg.use_backend("cuda"):
            kind, options = FORMS[form]
            model = KINDS[kind](KINDS[kind].Config(**options), SHAPE)
            streams = sg.Streams(3)
            optimisers = {name: sg.optim.make("adam", network, 1e-3)
                          for name, network in model.networks().items()}
            x = to_device(np.zeros((6, *SHAPE), np.float32))
            step = sg.capture(lambda m=model, x=x, s=streams, o=optimisers: m.training_step(
                x, s, o))
            step(), step()
            (graph,) = step.recordings.values()
            assert set(graph.captured.graph.others) <= {"add", "full"}, form
            assert len(graph.captured.graph.kernels) < 80


# --- captures, streams and threads ---------------------------------------------------------------

def filler(value):
    """A step that adds a constant to its array, and needs a cached one to do so."""
    return lambda x: sg.add(sg.tensor(x), sg.tensor(filled(x.shape, value, x.dtype))).data


@pytest.mark.parametrize("fails", ["the body", "a product by cuBLAS", "a wait"])
def test_the_first_error_of_a_capture_arrives_and_the_stream_goes_on(fails, gpu):
    x, pools = np.ones((4, 4), np.float32), []

    def step(x):
        y = sg.square(sg.tensor(x))
        if gpu.is_capturing():
            pools.append(gpu.local.captured)
            if fails == "the body":
                raise ZeroDivisionError("of the body")
            if fails == "a wait":
                gpu.synchronize()
            with sg.use_gemm("cublas"):
                sg.matmul(y, y)
        return y.data

    with sg.use_backend("cuda"):
        run = sg.capture(step)
        first = to_host(run(x))
        expected = {"the body": (ZeroDivisionError, "of the body"),
                    "a product by cuBLAS": (sg.UserError, "gemm 'cublas' cannot be captured"),
                    "a wait": (Exception, "waits for the GPU|StreamCaptureUnsupported")}[fails]
        for _ in range(2):                             # nor does a second try change it
            with pytest.raises(expected[0], match=expected[1]):
                run(x)
        assert not gpu.is_capturing() and gpu.stream is gpu.shared
        assert getattr(pools[-1].pool, "freed", True) and not pools[-1].kept_alive
        np.testing.assert_array_equal(to_host(sg.square(sg.tensor(to_device(x))).data), first)
        again = sg.capture(lambda x: sg.square(sg.tensor(x)).data)
        for _ in range(3):
            np.testing.assert_array_equal(to_host(again(x)), first)


def test_layers_are_watched_while_a_step_is_captured(gpu):
    with sg.use_backend("cuda"):
        network, seen = sg.nn.Dense(3, 2), []
        step = sg.capture(lambda x: network(sg.Tensor(x)).data)
        with network.watching(lambda layer, x, y: seen.append(layer)):
            results = [to_host(step(np.ones((4, 3), np.float32))) for _ in range(3)]
        assert seen == [network] * 2                   # the plain step and the captured one
        assert (results[0] == results[2]).all()


def test_a_capture_inside_another_is_a_part_of_it(gpu):
    with sg.use_backend("cuda"):
        inner = sg.capture(lambda x: sg.square(sg.tensor(x)).data)
        outer = sg.capture(lambda x: sg.square(sg.tensor(inner(x))).data)
        for k in range(1, 5):
            np.testing.assert_array_equal(to_host(outer(np.full(3, k, np.float32))), k**4)
        with gpu.capturing(), pytest.raises(sg.UserError, match="begins inside another one"):
            with gpu.capturing():
                pass


def test_batches_of_the_host_wait_for_the_kernels_that_still_read_their_buffers(gpu):
    """Buffers of an upload may be memory that a step before has freed and still uses."""
    with sg.use_backend("cuda"):
        step = sg.capture(lambda x: sg.square(sg.tensor(x)).data)
        for k in range(7):                             # the two buffers, several times over
            np.testing.assert_array_equal(to_host(step(np.full((2, 3), k, np.float32))), k * k)
        given = to_device(np.full((2, 3), 9, np.float32))    # of the GPU: copied there
        np.testing.assert_array_equal(to_host(step(given)), 81)


def test_an_upload_is_forgotten_with_its_graph(gpu):
    with sg.use_backend("cuda"):
        step = sg.capture(lambda x: sg.square(sg.tensor(x)).data)
        for _ in range(3):
            step(np.ones(3, np.float32))
        (graph,) = step.recordings.values()
        upload = weakref.ref(graph.uploads[0])
        del step, graph
        gc.collect()
        assert upload() is None


def test_a_graph_keeps_the_constants_it_reads(gpu):
    """Though the cache drops them, and though one is first asked for while it is recorded."""
    from scratchgen.engine import memory
    with sg.use_backend("cuda"):
        step, x = sg.capture(filler(5)), np.ones(3, np.float32)
        step(x)
        for cleared in (True, False):
            if cleared:
                memory._filled.cache_clear()           # recorded with a constant that is new
            np.testing.assert_array_equal(to_host(step(x)), 6)
            np.testing.assert_array_equal(to_host(filled((3,), 5, np.float32)), 5)
        memory._filled.cache_clear()
        gc.collect()
        np.testing.assert_array_equal(to_host(step(x)), 6)
        with gpu.capturing():                          # before anybody launches it
            constant = filled((3,), 7, np.float32)
        np.testing.assert_array_equal(to_host(constant), 7)


def test_a_second_thread_computes_on_the_same_stream(gpu):
    with sg.use_backend("cuda"):
        x = sg.square(sg.tensor(to_device(np.full(5, 3, np.float32))))
        found = []

        def work():
            with sg.use_backend("cuda"):
                z = x.data + 2                         # CuPy's own, on its current stream
                found.append((gpu.stream is gpu.shared, sg.add(x, 1), z))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        (same, y, z), = found
        assert same
        np.testing.assert_array_equal(to_host((y + sg.tensor(z)).data), 21)


# --- runs ----------------------------------------------------------------------------------------

def tables(backend, kind="vae", epochs=2, **model):
    return {"run": {"model": kind, "backend": backend}, "data": {"limit": 50},
            "train": {"epochs": epochs, "batch_size": 20}, "model": model}


RUNS = [("vae", {"hidden": 7, "latent": 2}), ("dae", {"hidden": 9}), ("classifier", {"code": 8}),
        ("gan", {"latent": 3, "generator": [9], "discriminator": [9], "d_steps": 2}),
        ("sdae", {"layers": [9, 8], "levels": [0.1, 0.1], "pretrain_epochs": 1})]


@pytest.mark.parametrize("kind, model", RUNS, ids=[kind for kind, _ in RUNS])
def test_a_run_is_that_of_numpy_and_resumes_to_the_same_bytes(kind, model, gpu, tmp_path):
    from scratchgen import train as trainer
    from scratchgen.train import runs
    for backend in ("numpy", "cuda"):
        trainer.train(tables(backend, kind, 4, **model), tmp_path / backend)
    lines = [runs.open_run(tmp_path / backend).metrics() for backend in ("numpy", "cuda")]
    for a, b in zip(*lines, strict=True):
        for name, value in a.items():
            if name.startswith(("train_", "test_", "valid_")):
                assert b[name] == pytest.approx(value, rel=2e-3, abs=2e-3), name
    trainer.train(tables("cuda", kind, 2, **model), tmp_path / "parts")
    trainer.train(tables("cuda", kind, 4, **model), tmp_path / "parts", resume=True)
    ends = [(tmp_path / name / "checkpoint.safetensors").read_bytes()
            for name in ("cuda", "parts")]
    assert ends[0] == ends[1]
    model = trainer.load(tmp_path / "cuda")            # on the CPU: the default backend
    assert trainer.evaluate_run(tmp_path / "cuda", {"run": {"backend": "numpy"}})
    assert isinstance(model.encode(np.zeros((2, 28, 28, 1), np.float32)), np.ndarray) if (
        model.encode) else True


@pytest.mark.parametrize("data", [{"binarize": "dynamic"}, {"binarize": "threshold"},
                                  {"binarize": "static"}, {"name": "ring"}])
def test_batches_from_the_host_and_from_the_gpu_are_the_same(data, gpu, tmp_path, monkeypatch):
    """Whether the set is gathered on the GPU, does not fit, or is drawn anew for each batch."""
    from scratchgen import train as trainer
    from scratchgen.train import stepper
    decoder = {"decoder": "gaussian"} if "name" in data else {}
    given = tables("cuda", hidden=7, latent=2, **decoder)
    given["data"] |= data
    trainer.train(given, tmp_path / "resident")
    monkeypatch.setattr(stepper, "MEMORY_SHARE", 0)
    trainer.train(given, tmp_path / "sent")
    ends = [(tmp_path / name / "checkpoint.safetensors").read_bytes()
            for name in ("resident", "sent")]
    assert ends[0] == ends[1]


def test_a_loss_that_is_no_number_is_found_though_it_comes_late(gpu, tmp_path):
    from scratchgen import train as trainer
    given = tables("cuda", hidden=7, latent=2)
    given["train"]["lr"] = 1e30
    with pytest.raises(sg.UserError, match=r"became (nan|inf) at step [23].*--lr below"):
        trainer.train(given, tmp_path / "run")


def test_warming_up_trains_two_steps_on_the_gpu(gpu):
    from scratchgen.cli.warmup import warm_up
    given = {"run": {"model": "dae", "backend": "cuda"}, "model": {"hidden": 3, "level": 0.75},
             "train": {"batch_size": 7, "optimizer": "rmsprop"}}
    assert warm_up(given).seconds > 0


def test_gradients_by_hand_are_refused_with_a_word(gpu, tmp_path):
    from scratchgen import train as trainer
    given = tables("cuda", hidden=7)
    given["run"]["gradient"] = "explicit"
    with pytest.raises(sg.UserError, match="gradients by hand are plain NumPy.*--gradient tape"):
        trainer.train(given, tmp_path / "run")


# --- the launch path -----------------------------------------------------------------------------

def test_the_launch_path_names_what_does_not_fit(gpu):
    xp = gpu.xp
    y, b = xp.zeros((3, 4), np.float32), xp.zeros(4, np.float32)

    def launch(y, b, activation=0, n=3, o=4, **options):
        cuda.launch("dense.bias_activation", 1, 32, y, b, activation, n, o, **options)

    launch(y, b)
    for wrong, error, message in [
            ({"y": np.zeros((3, 4), np.float32)}, TypeError, "y is a ndarray; expected an array in "
                                                             "the GPU's memory"),
            ({"b": b.astype(np.float64)}, TypeError, "b is of float64; expected float32"),
            ({"y": y.astype(np.int32)}, TypeError, "an array of int32; expected float32 or"),
            ({"y": xp.zeros((4, 3), np.float32).T}, ValueError, "y .* is a view with gaps"),
            ({"o": 2**31}, ValueError, "o = 2147483648 does not fit in int"),
            ({"activation": 1.5}, ValueError, "activation = 1.5 does not fit in int"),
            ({"activation": -2**31 - 1}, ValueError, "activation = -2147483649 does not fit")]:
        with pytest.raises(error, match=message):
            launch(**{"y": y, "b": b, **wrong})
    with pytest.raises(TypeError, match="takes 5 arguments .y, b, activation, n, o., not 1"):
        cuda.launch("dense.bias_activation", 1, 32, y)
    with pytest.raises(ValueError, match="a GPU takes at most"):
        cuda.launch("dense.bias_activation", (1, 70000), 32, y, b, 0, 3, 4)
    cuda.launch("dense.bias_activation", 0, 32, y, b, 0, 3, 4)                # nothing to do


def test_arguments_are_of_the_size_that_the_kernel_reads(gpu):
    """By value CuPy takes NumPy's numbers, and arrays of one element: a pair is a structure."""
    kernel = cuda.kernels_of("conv2d")["forward"]
    pair = cuda.argument(kernel, (3, 4), "int2", "stride", np.dtype(np.float32))
    assert (pair.size, pair.nbytes, pair["x"][0], pair["y"][0]) == (1, 8, 3, 4)
    assert pair.tobytes() == np.int32([3, 4]).tobytes()
    with pytest.raises(ValueError, match="kernel forward: stride = 2147483648 does not fit in int"):
        cuda.argument(kernel, (1, 2**31), "int2", "stride", np.dtype(np.float32))
    for dtype, size in ((np.float32, 4), (np.float64, 8)):
        number = cuda.argument(kernel, 0.5, "T", "slope", np.dtype(dtype))
        assert isinstance(number, dtype) and number.nbytes == size
    for kind, size in (("bool", 1), ("int", 4), ("unsigned", 4), ("long long", 8),
                       ("unsigned long long", 8), ("unsigned char", 1)):
        number = cuda.argument(kernel, 1, kind, "n", np.dtype(np.float32))
        assert isinstance(number, np.generic) and number.nbytes == size


def test_kernels_are_read_from_the_text():
    code = """
// constants: (true, 8) (false, 16)
template <typename T, bool WIDE, int SIZE>
__global__ void __launch_bounds__(256)
    tiled(const T* __restrict__ a, T *b, const unsigned long long* c, int2 pair, long long n) {}
__global__ void plain(unsigned* out) {}
"""
    tiled, plain = cuda.parse(code).values()
    assert tiled.parameters == (("const T*", "a"), ("T*", "b"), ("const unsigned long long*", "c"),
                                ("int2", "pair"), ("long long", "n"))
    assert tiled.instances() == ["tiled<float, true, 8>", "tiled<float, false, 16>",
                                 "tiled<double, true, 8>", "tiled<double, false, 16>"]
    assert plain.instances() == ["plain"] and plain.parameters == (("unsigned*", "out"),)


def test_errors_of_the_compiler_show_the_line():
    lines = (cuda.FOLDER / "dense.cu").read_text(encoding="utf-8").splitlines()
    line = next(i for i, text in enumerate(lines, 1) if "activate(v.at[k]" in text)
    log = f'dense.cu({line}): error: identifier "q" is undefined'
    text = explain("bias_activation<float>", log)
    assert re.search(rf"bias_activation<float> does not compile:\ndense.cu, line {line}: error: "
                     r".*undefined\n    v.at\[k\] = activate", text)


# --- no GPU, an old one, no CuPy: one sentence ---------------------------------------------------

class NoGpu:
    """CuPy where the driver says so."""

    class cuda:
        class runtime:
            class CUDARuntimeError(RuntimeError):
                pass

            message, version, count = "cudaErrorInsufficientDriver", 0, 1

            @classmethod
            def getDeviceCount(cls):
                if cls.message:
                    raise cls.CUDARuntimeError(cls.message)
                return cls.count

            @classmethod
            def driverGetVersion(cls):
                return cls.version

            @staticmethod
            def getDeviceProperties(device):
                return {"name": b"Tesla K80", "multiProcessorCount": 13, "major": 3, "minor": 7}

        class Device:
            id = 0


@pytest.mark.parametrize("message, version, count, expected", [
    ("cudaErrorInsufficientDriver: too old", 0, 0, "needs an NVIDIA GPU.*--backend numba"),
    ("cudaErrorInsufficientDriver: too old", 11040, 0, "driver is too old .*cuda12"),
    ("cudaErrorNoDevice", 13000, 0, "none can be found.*nvidia-smi"),
    ("", 13000, 0, "none can be found here"),
    ("", 13000, 1, "Tesla K80 has compute capability 3.7, and the kernels need 7.5"),
])
def test_a_gpu_that_cannot_be_used_is_explained(message, version, count, expected, monkeypatch):
    runtime = NoGpu.cuda.runtime
    for name, value in (("message", message), ("version", version), ("count", count)):
        monkeypatch.setattr(runtime, name, value)
    monkeypatch.setitem(sys.modules, "cupy", NoGpu)
    with pytest.raises(sg.UserError, match=expected):
        Gpu()


def test_without_cupy_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(sg.UserError, match=r"needs CuPy.*pip install 'scratchgen\[cuda13\]'"):
        import_cupy()
