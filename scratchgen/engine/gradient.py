"""``grad``: gradients as a function of tensors, without touching any ``.grad``."""

from collections.abc import Sequence
from typing import overload

import numpy as np

from ..errors import UserError
from .backward import run_backward
from .in_place import plain
from .other_names import RETAIN
from .tensor import Tensor, seed_for
from .types import TensorLike


@overload
def grad(outputs: Tensor | Sequence[Tensor], inputs: Tensor,
         grad_outputs: TensorLike | Sequence[TensorLike | None] | None = None,
         create_graph: bool = False, retain_graph: bool = False) -> Tensor: ...
@overload
def grad(outputs: Tensor | Sequence[Tensor], inputs: Sequence[Tensor],
         grad_outputs: TensorLike | Sequence[TensorLike | None] | None = None,
         create_graph: bool = False, retain_graph: bool = False) -> list[Tensor]: ...
def grad(outputs, inputs, grad_outputs=None, create_graph=False, retain_graph=False):
    """d outputs / d inputs, without touching any ``.grad``.

    ``outputs`` and ``inputs`` are tensors or lists of them; ``grad_outputs`` weighs the outputs.
    Returns a tensor for each input (zeros where the outputs do not depend on it); a single tensor
    for a single input. With ``create_graph=True`` the result can be differentiated again.
    """
    if retain_graph and not create_graph:
        raise UserError(RETAIN)
    single = isinstance(inputs, Tensor)
    inputs = [inputs] if single else list(inputs)
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    if not isinstance(grad_outputs, (list, tuple)):
        grad_outputs = [grad_outputs] * len(outputs)
    if not all(x.requires_grad for x in inputs):
        raise RuntimeError("grad() with respect to a tensor that does not require a gradient; "
                           "make it with sg.tensor(data, requires_grad=True)")
    recorded = [(y, g) for y, g in zip(outputs, grad_outputs, strict=True) if y.requires_grad]
    found = run_backward([y.node for y, _ in recorded],
                         [seed_for(y, g, create_graph) for y, g in recorded],
                         create_graph, wanted=[x.node for x in inputs])
    results = [Tensor(np.zeros_like(x.data)) if g is None
               else g if isinstance(g, Tensor) and g.requires_grad
               else Tensor(plain(g).copy())         # two inputs may be given the same array
               for x, g in zip(inputs, found, strict=True)]
    return results[0] if single else results
