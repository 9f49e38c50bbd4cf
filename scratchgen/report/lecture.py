"""The ten points of the lecture that the models demonstrate, summarised.

In a report every picture links to the point that it belongs to.
"""

from typing import NamedTuple


class Point(NamedTuple):
    """``name``: a few words; ``text``: one to three sentences."""

    name: str
    text: str


POINTS = {number: Point(*point) for number, point in enumerate((
    ("Autoencoding",
     "An autoencoder encodes its input and decodes the code again. With enough capacity and no "
     "further constraint it learns to copy the input, and its features are useless."),
    ("Denoising",
     "The input is heavily corrupted, and the target is the clean input. Copying no longer solves "
     "the task: the model must learn what images look like."),
    ("Encoder and decoder used separately",
     "The encoder provides features, the decoder generates images. Given random codes, the decoder "
     "of an autoencoder mostly fails: one cannot simply sample the latent space."),
    ("Clusters with holes between them",
     "Distinct images get distinct codes, so the embedding shows clusters. The loss does not "
     "constrain the space between the clusters, and the images decoded there show it."),
    ("The variational autoencoder",
     "ln p(x) = E[ln p(x|z)] − KL(q(z|x) ‖ p(z)) + KL(q(z|x) ‖ p(z|x)). The first term is the "
     "decoder's log-likelihood, estimated by sampling; the second has a closed form; the third "
     "cannot be computed but is never negative. So the first two are a lower bound."),
    ("Representation learning",
     "Features f and a classifier g on top of them are trained end to end or one after the other; "
     "the labels may be derived from the data. The accuracy of g measures what f has learned."),
    ("The adversarial game",
     "A generator transforms noise into images; a discriminator estimates the probability that an "
     "image is real. The discriminator learns to label images correctly, the generator learns to "
     "make images that are labelled as real."),
    ("The game on a line",
     "The discriminator approaches D* = p_data / (p_data + p_g). Its gradient moves the generated "
     "points to where D is larger. At the equilibrium p_g = p_data and D = ½."),
    ("A discriminator that is too strong",
     "The generator learns only from the discriminator's gradients. A discriminator that is always "
     "right saturates, and its gradients vanish. Corrupting its input keeps it uncertain."),
    ("Mode collapse",
     "The generator exploits whatever the discriminator does not detect: if one image is accepted, "
     "it suffices to generate only that image. All samples then look realistic, and all look "
     "alike."),
), start=1)}
