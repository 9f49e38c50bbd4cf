"""Dropout."""

from .. import ops
from ..engine.random import Stream
from ..engine.tensor import FLOATS, Tensor
from ..errors import UserError
from .checks import real_number
from .module import Module


class Dropout(Module):
    """Dropout: in training mode, zeros each element with probability p and scales by 1/(1 − p).

    The noise is drawn from ``stream``. Srivastava et al. 2014.
    """

    def __init__(self, p: float, stream: Stream | None = None) -> None:
        if not 0 <= real_number("Dropout", "p", p) <= 1:
            raise UserError(f"Dropout: p is {p!r}; give a probability from 0 to 1")
        self.p, self.stream = p, stream or Stream(0, "nn.dropout")

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        dtype = x.dtype.newbyteorder("=")
        if dtype not in FLOATS:
            raise TypeError(f"Dropout: x is of {dtype}; expected float32 or float64: convert with "
                            "x.astype(np.float32)")
        return ops.dropout(x, self.p, Tensor(self.stream.uniform(x.shape, dtype)))

    def describe(self) -> str:
        return f"p {self.p:g}"
