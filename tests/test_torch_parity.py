"""Values and gradients beside PyTorch's, float64: two independent implementations must agree."""

import numpy as np
import pytest
from checks import assert_close, draw

import scratchgen as sg

torch = pytest.importorskip("torch", reason="PyTorch is not installed; the extra 'bench' has it")
F = torch.nn.functional

RTOL = 1e-10
BACKENDS = ("numpy", "numba")

# x (N, H, W, C), w (KH, KW, C, O), stride, padding, dilation
CONVOLUTIONS = [
    ((2, 7, 9, 3), (3, 4, 3, 5), 1, 0, 1),
    ((2, 7, 9, 3), (5, 4, 3, 6), (2, 1), (2, 0), 1),
    ((3, 8, 10, 2), (3, 2, 2, 5), (2, 3), (1, 2), (3, 4)),
    ((2, 8, 11, 3), (2, 1, 3, 4), (5, 4), (0, 1), (2, 1)),
    ((3, 5, 4, 2), (1, 1, 2, 6), 1, 0, 1),
    ((2, 4, 5, 3), (4, 5, 3, 6), 3, 0, 1),
    ((2, 3, 5, 4), (5, 6, 4, 1), (2, 1), (3, 7), 1),
    ((4, 28, 27, 1), (5, 4, 1, 3), 2, 2, 1),
]
# x, w, stride, padding, output_padding, dilation
TRANSPOSED = [
    ((2, 4, 5, 3), (3, 2, 3, 6), 1, 0, 0, 1),
    ((2, 4, 5, 3), (5, 4, 3, 6), (3, 2), (2, 1), (1, 0), 1),
    ((3, 2, 4, 5), (3, 2, 5, 6), (2, 1), (1, 2), (1, 2), (2, 3)),
    ((2, 3, 4, 5), (1, 2, 5, 6), (4, 3), 0, (3, 1), 1),
    ((2, 1, 1, 5), (3, 4, 5, 6), 1, 0, 0, 1),
    ((3, 7, 8, 4), (4, 5, 4, 1), 2, 1, 1, (1, 2)),
]
# x, size, stride, padding
POOLS = [
    ((2, 6, 8, 3), 2, None, 0),
    ((2, 7, 9, 4), (3, 2), (2, 3), (1, 0)),
    ((3, 5, 8, 2), (4, 5), (1, 2), (2, 1)),
    ((2, 8, 11, 3), (2, 1), (5, 4), (1, 0)),
]


def images(t):
    """N H W C → N C H W, a torch tensor."""
    return t.permute(0, 3, 1, 2)


def back(t):
    """N C H W → N H W C."""
    return t.permute(0, 2, 3, 1)


def filters(t, first, second):
    """KH KW C O → channel axes first; contiguous, which some of torch's own kernels insist on."""
    return t.permute(first, second, 0, 1).contiguous()


def assert_parity(ours, theirs, arrays, backend, rtol=RTOL):
    """Value and all gradients of two functions of the same arrays, with a random dy."""
    with sg.use_backend(backend):
        inputs = [sg.tensor(a, requires_grad=True) for a in arrays]
        y = ours(*inputs)
        dy, = draw(y.shape, seed=9)
        found = [y.data, *(g.data for g in sg.grad(y, inputs, dy))]
    inputs = [torch.tensor(a, requires_grad=True) for a in arrays]
    y = theirs(*inputs)
    gradients = torch.autograd.grad(y, inputs, torch.tensor(dy))
    for a, b in zip(found, [y, *gradients], strict=True):
        assert_close(a, b.detach().numpy(), rtol)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_conv2d(case, bias, backend):
    x, w, *options = case
    assert_parity(
        lambda x, w, b=None: sg.conv2d(x, w, b, *options),
        lambda x, w, b=None: back(F.conv2d(images(x), filters(w, 3, 2), b, *options)),
        draw(x, w, *[w[3:]] * bias), backend)


# Kernels that need an odd and an even number of zeros along each axis
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kernel, dilation", [((3, 5), 1), ((2, 3), 1), ((4, 2), (1, 3)), (1, 1)])
def test_conv2d_of_the_same_size(kernel, dilation, backend):
    kernel = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    x, w, b = (2, 7, 9, 3), (*kernel, 3, 5), (5,)
    assert_parity(
        lambda x, w, b: sg.conv2d(x, w, b, 1, "same", dilation),
        lambda x, w, b: back(F.conv2d(images(x), filters(w, 3, 2), b, 1, "same", dilation)),
        draw(x, w, b), backend)
    valid = sg.conv2d(*draw(x, w, b), 1, "valid", dilation)
    assert np.array_equal(valid.data, sg.conv2d(*draw(x, w, b), 1, 0, dilation).data)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("channels, outputs, groups", [(6, 4, 2), (6, 9, 3), (4, 4, 4), (4, 8, 4)])
@pytest.mark.parametrize("padding", [1, "same"])
def test_conv2d_in_groups(channels, outputs, groups, padding, backend):
    stride = 1 if padding == "same" else (2, 1)
    assert_parity(
        lambda x, w, b: sg.conv2d(x, w, b, stride, padding, groups=groups),
        lambda x, w, b: back(F.conv2d(images(x), filters(w, 3, 2), b, stride, padding, 1, groups)),
        draw((2, 5, 7, channels), (3, 2, channels // groups, outputs), (outputs,)), backend)


def transposed_filters(w, groups):
    """KH KW C/groups O → C, O/groups, KH, KW."""
    return torch.cat([filters(part, 2, 3) for part in w.chunk(groups, dim=3)])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("channels, outputs, groups", [(6, 4, 2), (6, 9, 3), (4, 4, 4)])
def test_conv_transpose2d_in_groups(channels, outputs, groups, backend):
    assert_parity(
        lambda x, w, b: sg.conv_transpose2d(x, w, b, (2, 1), 1, (1, 0), groups=groups),
        lambda x, w, b: back(F.conv_transpose2d(images(x), transposed_filters(w, groups), b, (2, 1),
                                                1, (1, 0), groups)),
        draw((2, 5, 7, channels), (3, 2, channels // groups, outputs), (outputs,)), backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("case", TRANSPOSED, ids=str)
def test_conv_transpose2d(case, bias, backend):
    x, w, stride, padding, output_padding, dilation = case
    assert_parity(
        lambda x, w, b=None: sg.conv_transpose2d(x, w, b, stride, padding, output_padding,
                                                 dilation),
        lambda x, w, b=None: back(F.conv_transpose2d(images(x), filters(w, 2, 3), b, stride,
                                                     padding, output_padding, 1, dilation)),
        draw(x, w, *[w[3:]] * bias), backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
@pytest.mark.parametrize("case", POOLS, ids=str)
def test_pooling(case, name, backend):
    x, *options = case
    assert_parity(lambda x: getattr(sg, name)(x, *options),
                  lambda x: back(getattr(F, name)(images(x), *options)), draw(x), backend)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_upsample2d(mode):
    assert_parity(lambda x: sg.upsample2d(x, (3, 2), mode),
                  lambda x: back(F.interpolate(images(x), scale_factor=(3, 2), mode=mode)),
                  draw((2, 4, 5, 3)), "numba")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("shape", [(7, 4), (4, 6, 5, 3)], ids=str)
def test_batch_norm(shape, train, backend):
    c = shape[-1:]
    arrays = draw(shape, c, c)
    mean, var = draw(c, c, seed=1)
    var = var**2 + 0.1
    running = [mean.copy(), var.copy()]
    torch_running = [torch.tensor(mean), torch.tensor(var)]

    def ours(x, gamma, beta):
        return sg.batch_norm(x, gamma, beta, *running, train=train, momentum=0.3, eps=1e-3)

    def theirs(x, gamma, beta):
        y = F.batch_norm(x.reshape(-1, *c), *torch_running, gamma, beta, train, 0.3, 1e-3)
        return y.reshape(x.shape)

    assert_parity(ours, theirs, arrays, backend)
    for a, b in zip(running, torch_running, strict=True):
        assert_close(a, b.numpy(), RTOL)


# --- losses --------------------------------------------------------------------------------------

REDUCTIONS = ("sum", "mean", "none")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_bce_with_logits(reduction, backend):
    logits, target = draw((5, 7), (5, 7))
    logits = np.concatenate([logits, 1000 * logits[:2]])              # no overflow, either sign
    target = 1 / (1 + np.exp(-np.concatenate([target, target[:2]])))
    assert_parity(lambda x, t: sg.bce_with_logits(x, t, reduction),
                  lambda x, t: F.binary_cross_entropy_with_logits(x, t, reduction=reduction),
                  [logits, target], backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_mse(reduction, backend):
    assert_parity(lambda x, t: sg.mse(x, t, reduction),
                  lambda x, t: F.mse_loss(x, t, reduction=reduction), draw((5, 7), (5, 7)), backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_cross_entropy(reduction, backend):
    labels = np.array([3, 0, 6, 2, 3])
    assert_parity(lambda x: sg.cross_entropy(x, labels, reduction),
                  lambda x: F.cross_entropy(x, torch.tensor(labels), reduction=reduction),
                  draw((5, 7)), backend)
