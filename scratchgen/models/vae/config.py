"""The options of the VAE: the [model] table of a configuration."""

from dataclasses import dataclass, field

from ... import nn
from ...errors import UserError
from .likelihood import DECODERS


@dataclass
class VAEConfig:
    """The [model] table."""

    arch: str = field(default="mlp", metadata={"choices": ("mlp", "conv", "linear")})
    hidden: list[int] = field(default_factory=lambda: [500], metadata={"low": 1})    # mlp
    channels: list[int] = field(default_factory=lambda: [32, 64], metadata={"low": 1})  # conv
    latent: int = field(default=20, metadata={"low": 1})
    activation: str = field(default="tanh", metadata={"choices": nn.Activation.NAMES})
    decoder: str = field(default="bernoulli", metadata={"choices": DECODERS})
    std: float = field(default=0.1, metadata={"above": 0})   # of p(x|z); initial, if learned
    objective: str = field(default="elbo", metadata={"choices": ("elbo", "iwae")})
    samples: int = field(default=1, metadata={"low": 1})     # of z, for each image
    beta: float = field(default=1.0, metadata={"low": 0})
    warmup: int = field(default=0, metadata={"low": 0})      # epochs
    free_bits: float = field(default=0.0, metadata={"low": 0})  # nats for each latent dimension
    init: str = field(default="glorot", metadata={"choices": tuple(nn.INITIALISERS)})

    def __post_init__(self):
        self.hidden = (self.hidden,) if isinstance(self.hidden, int) else tuple(self.hidden)
        if not self.hidden or not self.channels:
            raise UserError("hidden and channels name at least one size; for a VAE without "
                            'hidden layers use arch = "linear"')
        if self.objective == "iwae" and self.free_bits:
            raise UserError("free_bits needs the KL in closed form, which the IWAE does not "
                            'use: expected free_bits = 0 or objective = "elbo"')
