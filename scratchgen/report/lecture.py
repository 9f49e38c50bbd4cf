"""The ten points of the lecture that the models make visible, each in a few words of our own.

Reports link every picture to the point it belongs to.
"""

from typing import NamedTuple


class Point(NamedTuple):
    """``name`` in a few words, ``text`` in one or two sentences."""

    name: str
    text: str


POINTS = {number: Point(*point) for number, point in enumerate((
    ("Autoencoding",
     "Encode, decode, come back to what went in. With room enough and nothing in the way, an "
     "autoencoder learns to copy, and its features are useless."),
    ("Denoising",
     "Corrupt the input heavily and ask for the clean one: copying no longer helps, knowing what "
     "images look like does."),
    ("Two halves, used alone",
     "The encoder gives features, the decoder makes images. Fed with random codes, the decoder of "
     "an autoencoder mostly fails: one does not simply sample the latent space."),
    ("Clusters, but holes",
     "Distinct images get distinct codes, so the embedding shows clusters. Nothing asks for the "
     "space between them to mean anything, and what decodes there shows it."),
    ("The variational autoencoder",
     "ln p(x) = E[ln p(x|z)] − KL(q(z|x) ‖ p(z)) + KL(q(z|x) ‖ p(z|x)). The first is the decoder, "
     "estimated by sampling; the second has a closed form; the third cannot be computed but is "
     "never negative, so the first two are a lower bound."),
    ("Representation learning",
     "Features f and a classifier g on top of them, end to end or one after the other; the labels "
     "may be derived from the data. How well g does says what f has learned."),
    ("The adversarial game",
     "A generator turns noise into images, a discriminator says how likely each is real. One "
     "assigns the right labels, the other tries to be mistaken for the data."),
    ("The game on a line",
     "The discriminator goes towards D* = p_data / (p_data + p_g); its slope moves what is "
     "generated to where it is more likely called real; at the end p_g = p_data and D = ½."),
    ("A discriminator too strong",
     "It is the generator's only source of gradients. When it is always right it saturates, and "
     "there is nothing left to follow. Corrupting its input keeps it unsure."),
    ("A generator that cheats",
     "It exploits whatever the discriminator misses: if one image passes, making only that one "
     "pays. Mode collapse looks like samples that are all equally real, and all alike."),
), start=1)}
