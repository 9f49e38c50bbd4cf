"""Networks forward and backward in plain NumPy: the chain rule, layer by layer, without the tape.

Each layer has two functions: ``forward`` returns the output and a cache for the backward pass;
``backward`` maps dL/dy to the gradients of the layer's parameters and to dL/dx, which is dL/dy of
the previous layer. d· stands for dL/d·. No kernels and no ops are used, so the engine's gradients
can be compared with these.
"""

import numpy as np

from .. import nn

SLOPE = 0.2                               # of leaky ReLU for x < 0


def forward(layer, x):
    """(y, cache) of a layer or network."""
    return LAYERS[type(layer)][0](layer, x)


def backward(layer, cache, dy):
    """(name → gradient of each parameter, dx) from dy; names as in ``named_parameters()``."""
    return LAYERS[type(layer)][1](layer, cache, dy)


# --- networks ------------------------------------------------------------------------------------

def sequential_forward(network, x):
    caches = []
    for layer in network.layers:
        x, cache = forward(layer, x)
        caches.append(cache)
    return x, caches


def sequential_backward(network, caches, dy):
    gradients = {}
    for i in reversed(range(len(network.layers))):     # from the last layer to the first
        layer_gradients, dy = backward(network.layers[i], caches[i], dy)
        gradients.update({f"layers.{i}.{name}": g for name, g in layer_gradients.items()})
    return gradients, dy


# --- dense: h = x W + b, y = a(h) ----------------------------------------------------------------

def dense_forward(layer, x):
    y = activate(layer.activation, x @ layer.w.data + layer.b.data)
    return y, (x, y)


def dense_backward(layer, cache, dy):
    x, y = cache
    dh = dy * slope(layer.activation, y)
    return {"w": x.T @ dh, "b": dh.sum(axis=0)}, dh @ layer.w.data.T


# --- convolution: y[n,i,j] = Σ_uv x[n, i s + u d, j s + v d] W[u,v] + b over padded x ------------

def conv_forward(layer, x):
    padded = pad(x, layer)
    kh, kw = layer.w.shape[:2]
    (sh, sw), (dh, dw) = pair(layer.options["stride"]), pair(layer.options["dilation"])
    oh = (padded.shape[1] - dh * (kh - 1) - 1) // sh + 1
    ow = (padded.shape[2] - dw * (kw - 1) - 1) // sw + 1
    y = np.zeros((len(x), oh, ow, layer.w.shape[3]), x.dtype)
    for u, v, window in taps(layer, oh, ow):
        y += padded[window] @ layer.w.data[u, v]
    return (y if layer.b is None else y + layer.b.data), (x.shape, padded)


def conv_backward(layer, cache, dy):
    shape, padded = cache
    dw, dpadded = np.zeros_like(layer.w.data), np.zeros_like(padded)
    for u, v, window in taps(layer, *dy.shape[1:3]):
        dw[u, v] = np.einsum("nijc,nijo->co", padded[window], dy)
        dpadded[window] += dy @ layer.w.data[u, v].T     # windows overlap: contributions add up
    return with_bias(layer, dw, dy), unpad(dpadded, layer, shape)


# --- transposed convolution: the same sums, with input and output exchanged ----------------------

def conv_transpose_forward(layer, x):
    kh, kw = layer.w.shape[:2]
    (sh, sw), (dh, dw) = pair(layer.options["stride"]), pair(layer.options["dilation"])
    (ph, pw), (eh, ew) = pair(layer.options["padding"]), pair(layer.options["output_padding"])
    n, h, w, _ = x.shape
    shape = (n, (h - 1) * sh - 2 * ph + dh * (kh - 1) + 1 + eh,
             (w - 1) * sw - 2 * pw + dw * (kw - 1) + 1 + ew, layer.w.shape[3])
    padded = np.zeros((n, shape[1] + 2 * ph, shape[2] + 2 * pw, shape[3]), x.dtype)
    for u, v, window in taps(layer, h, w):
        padded[window] += x @ layer.w.data[u, v]         # each input pixel adds to a window
    y = unpad(padded, layer, shape)
    return (y if layer.b is None else y + layer.b.data), x


def conv_transpose_backward(layer, x, dy):
    dpadded = pad(dy, layer)
    dw, dx = np.zeros_like(layer.w.data), np.zeros_like(x)
    for u, v, window in taps(layer, *x.shape[1:3]):
        dw[u, v] = np.einsum("nijc,nijo->co", x, dpadded[window])
        dx += dpadded[window] @ layer.w.data[u, v].T
    return with_bias(layer, dw, dy), dx


def taps(layer, oh, ow):
    """(u, v, index of the padded pixels under filter element (u, v), for all window positions)."""
    kh, kw = layer.w.shape[:2]
    (sh, sw), (dh, dw) = pair(layer.options["stride"]), pair(layer.options["dilation"])
    for u in range(kh):
        for v in range(kw):
            yield u, v, (slice(None), slice(u * dh, u * dh + sh * (oh - 1) + 1, sh),
                         slice(v * dw, v * dw + sw * (ow - 1) + 1, sw))


def pad(x, layer):
    ph, pw = pair(layer.options["padding"])
    return np.pad(x, ((0, 0), (ph, ph), (pw, pw), (0, 0)))


def unpad(padded, layer, shape):
    ph, pw = pair(layer.options["padding"])
    return padded[:, ph:ph + shape[1], pw:pw + shape[2]]


def pair(value):
    return (value, value) if isinstance(value, int) else value


def with_bias(layer, dw, dy):
    return {"w": dw} if layer.b is None else {"w": dw, "b": dy.sum(axis=(0, 1, 2))}


# --- batch norm: x̂ = (x − m) r, r = 1/√(var + ε), y = γ x̂ + β -----------------------------------

def batch_norm_forward(layer, x):
    rows = tuple(range(x.ndim - 1))
    if layer.training:
        count = x[..., 0].size
        m, var = x.mean(axis=rows), x.var(axis=rows)
        if layer.tracking:
            layer.running_mean += layer.momentum * (m - layer.running_mean)
            layer.running_var += layer.momentum * (var * count / (count - 1) - layer.running_var)
    else:
        m, var = layer.running_mean, layer.running_var
    r = 1 / np.sqrt(var + layer.eps)
    normal = (x - m) * r
    return layer.gamma.data * normal + layer.beta.data, (normal, r, layer.training)


def batch_norm_backward(layer, cache, dy):
    """In training m and var depend on x too: dx = γ r (dy − mean(dy) − x̂ mean(dy x̂))."""
    normal, r, training = cache
    rows = tuple(range(dy.ndim - 1))
    dgamma, dbeta = (dy * normal).sum(axis=rows), dy.sum(axis=rows)
    if training:
        count = dy[..., 0].size
        dy = dy - dbeta / count - normal * dgamma / count
    return {"gamma": dgamma, "beta": dbeta}, layer.gamma.data * r * dy


# --- layers without parameters -------------------------------------------------------------------

def activation_forward(layer, x):
    y = activate(layer.name, x)
    return y, y


def activation_backward(layer, y, dy):
    return {}, dy * slope(layer.name, y)


def flatten_forward(layer, x):
    return x.reshape(len(x), -1), x.shape


def reshape_forward(layer, x):
    return x.reshape(len(x), *layer.shape), x.shape


def reshape_backward(layer, shape, dy):
    return {}, dy.reshape(shape)


LAYERS = {
    nn.Sequential: (sequential_forward, sequential_backward),
    nn.Dense: (dense_forward, dense_backward),
    nn.Conv2d: (conv_forward, conv_backward),
    nn.ConvTranspose2d: (conv_transpose_forward, conv_transpose_backward),
    nn.BatchNorm: (batch_norm_forward, batch_norm_backward),
    nn.Activation: (activation_forward, activation_backward),
    nn.Flatten: (flatten_forward, reshape_backward),
    nn.Reshape: (reshape_forward, reshape_backward),
}


# --- activations and their derivatives, from the output y ----------------------------------------

def activate(name, h):
    """a(h) by name; None is the identity."""
    with np.errstate(over="ignore"):
        return {None: lambda: h, "sigmoid": lambda: sigmoid(h), "tanh": lambda: np.tanh(h),
                "relu": lambda: np.maximum(h, 0),
                "leaky_relu": lambda: np.where(h > 0, h, h * h.dtype.type(SLOPE)),
                "elu": lambda: np.where(h > 0, h, np.expm1(np.minimum(h, 0))),
                "softplus": lambda: np.logaddexp(h, h.dtype.type(0))}[name]()


def slope(name, y):
    """a'(h) from y = a(h)."""
    one = y.dtype.type(1)
    return {None: lambda: one, "sigmoid": lambda: y * (1 - y), "tanh": lambda: 1 - y * y,
            "relu": lambda: (y > 0).astype(y.dtype),
            "leaky_relu": lambda: np.where(y > 0, one, y.dtype.type(SLOPE)),
            "elu": lambda: np.where(y > 0, one, y + 1),
            "softplus": lambda: 1 - np.exp(-y)}[name]()


def sigmoid(h):
    """σ(h) = 1/(1 + e⁻ʰ)"""
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-h))
