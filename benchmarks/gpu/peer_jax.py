"""JAX on the GPU: the whole step in one jit whose state is donated.

Losses and networks are those of ``benchmarks/peers/jax.py``.
"""

import jax
import jax.numpy as jnp

from ..peers import jax as on_cpu
from . import precision

set_precision = precision.jax


class Peer(on_cpu.Peer):
    last = None

    def step(self, i):
        x, noise = self.batches[i % len(self.batches)]
        self.state, self.last = self.compiled(self.state, x, noise)

    def wait(self):
        jax.block_until_ready((self.state, self.last))

    def losses(self):
        """Of the last step."""
        return [float(term) for term in self.last]

    def classifier_loss(self, p, x, labels):
        logits, _ = self.run("net", p["net"], x)
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
        return -jnp.mean(chosen)
