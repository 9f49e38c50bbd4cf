"""Pictures of a run: curves of the metrics, samples, reconstructions, embeddings.

``catalogue`` lists them, ``draw_run`` writes those that a run has. matplotlib is imported with the
first picture, since that takes a second.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..engine.backend import use_backend
from ..errors import UserError
from ..train import runs
from .capabilities import draws_images
from .catalogue import PICTURES, Picture, pictures_of
from .curves import WORDS, curves, panels_of
from .frames import keep_samples
from .images import denoised, filters_by_corruption, first_weights
from .latent import latent_grid
from .mosaic import mosaic, save_grid, strip, write, write_film
from .subject import HeldOut, Subject, subject_of

__all__ = ["PICTURES", "WORDS", "HeldOut", "Picture", "Subject", "curves", "draw_run",
           "filters_by_corruption", "first_weights", "keep_samples", "mosaic", "overview",
           "panels_of", "pictures_of", "save_grid", "subject_of"]


def draw_run(path: str | os.PathLike[str]) -> list[Path]:
    """Draw the pictures of the run folder ``path`` into ``pictures/``; returns their paths.

    Files of pictures that no longer apply to the run are removed.
    """
    subject, backend = subject_of(path)
    folder, written = runs.open_run(path).pictures, []
    with use_backend(backend):
        for picture in pictures_of(subject.model, subject.history):
            drawn, file = subject.draw(picture.draw), folder / picture.file
            if drawn is None:
                file.unlink(missing_ok=True)
            elif picture.suffix == ".gif":
                written.append(write_film(drawn, file))
            else:
                written.append(write(drawn, file))
    return written


def overview(run_paths: Sequence[str | os.PathLike[str]], path: str | os.PathLike[str]) -> Path:
    """Write one wide picture with a panel for each run: DAE triptych, VAE manifold, GAN samples.

    Returns ``path``.
    """
    if not run_paths:
        raise UserError("an overview of no runs: expected at least one run folder")
    panels = []
    for subject, backend in map(subject_of, run_paths):
        with use_backend(backend):
            panels.append(_panel(subject.model, subject.test))
    return write(strip(panels), path)


def _panel(model, test):
    """(mosaic, title, subtitle) for the overview."""
    if not draws_images(model):
        raise UserError(f"an overview of a {model.kind} with items of shape {model.image_shape}: "
                        "expected a model of images")
    if model.kind == "dae":
        triples = np.stack(denoised(model, test.of_each_class(each=2)), axis=1)
        return (mosaic(triples.reshape(-1, *model.image_shape), columns=6),
                "Denoising autoencoder", "clean · corrupted · reconstructed")
    if model.kind == "vae" and model.config.latent == 2:
        return mosaic(latent_grid(model, 10)[0], columns=10), "VAE", "2-D latent manifold"
    return mosaic(model.sample(100)), model.kind.upper(), "samples"
