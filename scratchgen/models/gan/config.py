"""The options of the GAN: the [model] table of a configuration."""

from dataclasses import dataclass, field

from ... import nn
from ...errors import UserError
from .losses import LOSSES, PENALTIES


@dataclass
class GANConfig:
    """The [model] table."""

    arch: str = field(default="mlp", metadata={"choices": ("mlp", "conv")})
    latent: int = field(default=100, metadata={"low": 1})
    generator: list[int] = field(default_factory=lambda: [256, 512], metadata={"low": 1})
    discriminator: list[int] = field(default_factory=lambda: [512, 256], metadata={"low": 1})
    channels: int = field(default=64, metadata={"low": 1})   # "conv": next to the image
    loss: str = field(default="non-saturating", metadata={"choices": LOSSES})
    penalty: str = field(default="none", metadata={"choices": PENALTIES})
    penalty_weight: float = field(default=10.0, metadata={"low": 0})         # λ, or R1's γ
    smoothing: float = field(default=0.0, metadata={"low": 0, "below": 1})   # α, real label
    noise: float = field(default=0.0, metadata={"low": 0})   # std on D's input at the start
    noise_epochs: int = field(default=0, metadata={"low": 0})  # until it is 0; 0: it stays
    input_dropout: float = field(default=0.0, metadata={"low": 0, "below": 1})
    d_steps: int = field(default=1, metadata={"low": 1})     # batches for D before G's turn
    g_steps: int = field(default=1, metadata={"low": 1})     # updates of G in a turn
    init: str = field(default="glorot", metadata={"choices": tuple(nn.INITIALISERS)})

    def __post_init__(self):
        if self.loss == "wasserstein" and self.smoothing:
            raise UserError("smoothing lowers the label of real images, and the loss "
                            '"wasserstein" has no labels: expected smoothing = 0, or another '
                            "loss")
