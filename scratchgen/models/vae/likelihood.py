"""The likelihoods p(x|z) of images x (N, D), given the decoder's outputs (N, D).

Every ln p includes its normalising constants, so that bounds on ln p(x) can be compared between
models.
"""

import math

import numpy as np

from ... import nn, ops
from ...engine.tensor import constant, tensor
from ..by_hand import sigmoid

LOG_2PI = math.log(2 * math.pi)


class Bernoulli(nn.Module):
    """Each pixel is on with probability σ(output), independently given z.

    For grey pixels −ln p is a cross-entropy, which is at least Σ H(x), and not the likelihood of a
    binary image.
    """

    def negative_log_likelihood(self, x, output):
        """−Σ ln p over all rows: one number."""
        return ops.bce_with_logits(output, constant(x))

    def log_p(self, x, output):
        """ln p of each row, (N,)."""
        return ops.bernoulli_log_likelihood(constant(x), output)

    def log_p_and_gradients(self, x, output):
        """(ln p (N,), d ln p / d output (N, D), name → d ln p / d parameter (N,)), plain NumPy."""
        nats = np.maximum(output, 0) - output * x + np.log1p(np.exp(-np.abs(output)))
        return -nats.sum(axis=1), x - sigmoid(output), {}

    def mean(self, output):
        """E[x|z], an array."""
        return sigmoid(output)


class Gaussian(nn.Module):
    """Each value is N(output, e^logvar), with one variance for all values, fixed or learned.

        ln p = −½ Σ_d [ln 2π + logvar + (x − output)² e^−logvar]

    The optimal learned e^logvar is the mean squared error of a value (Rybkin et al. 2021).
    """

    def __init__(self, std, learned=False, dtype=np.float32):
        logvar = np.full(1, 2 * math.log(std), dtype)
        self.logvar = nn.Parameter(logvar) if learned else tensor(logvar)

    def negative_log_likelihood(self, x, output):
        return -ops.sum(self.log_p(x, output))

    def log_p(self, x, output):
        return ops.gaussian_log_likelihood(constant(x), output, self.logvar)

    def log_p_and_gradients(self, x, output):
        logvar = self.logvar.data[0]
        precision, difference = np.exp(-logvar), x - output
        terms = LOG_2PI + logvar + difference**2 * precision
        slope = difference * precision
        dlogvar = (slope * difference - 1).sum(axis=1) / 2
        return -terms.sum(axis=1) / 2, slope, {"logvar": dlogvar}

    def mean(self, output):
        return output

    @property
    def variance(self):
        """e^logvar, a number."""
        return math.exp(self.logvar.data[0])


def likelihood_named(name, std, dtype):
    """The likelihood of the option ``decoder``."""
    if name == "bernoulli":
        return Bernoulli()
    return Gaussian(std, learned=name == "learned-variance", dtype=dtype)


DECODERS = ("bernoulli", "gaussian", "learned-variance")
