"""A VAE on MNIST in plain PyTorch, one file: read, train an epoch, evaluate, print.

    python -m benchmarks.peers.torch_vae_script FOLDER [EPOCHS]

The network and training of ``scratchgen train vae``: 784-500-20-500-784, tanh, batch 100, Adam
1e-3, Glorot's initial weights. The images stay in memory as one tensor, so that no data loader
slows the script down.
"""

import gzip
import pathlib
import sys

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


def read_images(folder, name):
    for path in (folder / name, folder / f"{name}.gz"):
        if path.exists():
            raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            pixels = np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 784)
            return torch.from_numpy(pixels.astype(np.float32) / 255)
    raise SystemExit(f"no {name} in {folder}")


class VAE(nn.Module):
    def __init__(self, hidden=500, latent=20):
        super().__init__()
        self.encoder = nn.Linear(784, hidden)
        self.code = nn.Linear(hidden, 2 * latent)
        self.hidden = nn.Linear(latent, hidden)
        self.decoder = nn.Linear(hidden, 784)
        for layer in (self.encoder, self.code, self.hidden, self.decoder):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x):
        mean, logvar = self.code(torch.tanh(self.encoder(x))).chunk(2, dim=1)
        z = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
        return self.decoder(torch.tanh(self.hidden(z))), mean, logvar

    def loss(self, x):
        logits, mean, logvar = self(x)
        kl = 0.5 * torch.sum(mean.square() + logvar.exp() - logvar - 1)
        return F.binary_cross_entropy_with_logits(logits, x, reduction="sum") + kl


def main(folder, epochs=1):
    torch.manual_seed(0)
    train = read_images(folder, "train-images-idx3-ubyte")
    test = read_images(folder, "t10k-images-idx3-ubyte")
    model = VAE()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    for _ in range(epochs):
        for batch in torch.randperm(len(train)).split(100):
            x = train[batch]
            optimiser.zero_grad()
            loss = model.loss(x) / len(x)
            loss.backward()
            optimiser.step()
    with torch.no_grad():
        total = sum(model.loss(x).item() for x in test.split(500))
    print(f"test_loss {total / len(test):.3f}")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), *map(int, sys.argv[2:]))
