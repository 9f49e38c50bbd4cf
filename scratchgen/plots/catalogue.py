"""The catalogue of pictures: their functions, captions, and the lecture's points they belong to.

The parameters of a picture's function name what it needs (see ``Subject``). It returns a figure, or
None if the run has nothing to draw: another kind of model, no images, no two-dimensional codes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from . import classes, curves, film, images, latent, points

if TYPE_CHECKING:
    from ..models.base import Model


@dataclass(frozen=True)
class Picture:
    """A picture: ``name`` of its file, ``heading`` and ``caption`` in the report.

    ``draw`` is its function. ``caption`` may depend on the kind or the form of the model: then it
    is a dict, with the key "" for all others. ``point`` is the number of the lecture's point, or a
    dict of numbers by kind, or None.
    """

    name: str
    heading: str
    draw: Callable[..., Any]
    caption: str | dict[str, str]
    point: int | dict[str, int] | None
    suffix: str = ".png"

    def caption_for(self, kind: str, *forms: str) -> str:
        """The caption for a model of this kind and these forms.

        Forms: "mlp", "conv", …; "copy" for an autoencoder whose input is not corrupted, "rotation"
        for a classifier of rotations.
        """
        if isinstance(self.caption, str):
            return self.caption
        return next(self.caption[key] for key in (*forms, kind, "") if key in self.caption)

    def point_for(self, kind: str) -> int | None:
        """The number of the lecture's point, or None."""
        return self.point.get(kind, self.point[""]) if isinstance(self.point, dict) else self.point

    @property
    def file(self) -> str:
        """The name of its file in the folder ``pictures``."""
        return self.name + self.suffix


FEATURES = ("Features of the test items, coloured by class. The better they separate the classes, "
            "the easier the task of the classifier on top.")
INTERPOLATION = ("The first and the last image of each row are test images; the others are decoded "
                 "from the codes between them{}. The title gives the mean distance to the nearest "
                 "test image, at the codes and half way between them.")

PICTURES: tuple[Picture, ...] = (
    Picture("triptych", "Clean, corrupted, reconstructed", images.triptych,
            {"copy": "The input was not corrupted, so copying it would be a perfect solution, "
                     "without any knowledge of images.",
             "": "The target is the clean image, not the corrupted one: the model fills in what "
                 "was destroyed, which is impossible by copying."}, 2),
    Picture("reconstructions", "Reconstructions", images.reconstructions,
            "The code preserves position, slant and class, but not every detail. With fewer latent "
            "variables the reconstructions are smoother.", 5),
    Picture("game", "The game on a line", points.game,
            "Dotted black: the density of the data. Green: the density of the generated points, "
            "with arrows from z to G(z) below. Light blue dashes: the optimal discriminator D*; "
            "blue: the trained one. At the equilibrium the green curve equals the black one, and "
            "both discriminators are one half.", 8),
    Picture("plane", "Samples and the density of the data", points.plane,
            {"gan": "Dots are samples; circles or contours show the data. A mode without dots has "
                    "been lost (mode collapse). Dots between the modes do not resemble the data.",
             "": "Dots are samples; circles or contours show the data. Dots between them do not "
                 "resemble the data."}, {"gan": 10, "": 3}),
    Picture("field", "Reconstructions as a vector field", points.field,
            "Arrows from points to their reconstructions. They point towards higher density of the "
            "data, because removing noise requires knowing where the data are.", 2),
    Picture("samples", "Samples", images.samples,
            {"vae": "New images, decoded from codes drawn from the prior. This works because the "
                    "KL divergence keeps the codes of images close to the prior.",
             "gan": "New images, generated from noise. Look for repeated images (mode collapse) "
                    "and for shapes that do not occur in the data.",
             "": "Images decoded from random codes. They are expected to look bad: the training "
                 "does not determine which codes belong to images, so the decoder has never seen "
                 "codes like these."},
            {"vae": 5, "gan": 7, "": 3}),
    Picture("film", "Samples after each epoch", film.film,
            "Samples from the same random numbers after each epoch; only the model changes.",
            {"vae": 5, "gan": 8, "": 3}, ".gif"),
    Picture("embedding", "Embedding", latent.embedding,
            {"vae": "Codes of the test items, coloured by class, and circles of the prior. There "
                    "are clusters again, but the KL divergence pulls them towards the prior.",
             "rotation": "Features of upright test items, coloured by class. The class labels were "
                         "not used in training: whatever separates the classes was learned by "
                         "predicting rotations.",
             "probe": FEATURES, "classifier": FEATURES, "sdae": FEATURES,
             "": "Codes of the test items, coloured by class. Items that look different have "
                 "different codes, so there are clusters; the training does not constrain the "
                 "space between them."},
            {"vae": 5, "probe": 6, "classifier": 6, "sdae": 6, "": 4}),
    Picture("manifold", "Images over the latent plane", latent.manifold,
            "Images decoded from a grid in the latent plane whose cells all have the same prior "
            "probability. Neighbours look alike, and the classes change gradually.", 5),
    Picture("interpolation", "Interpolation between two classes", latent.interpolation,
            {"vae": INTERPOLATION.format(""),
             "": INTERPOLATION.format(" and look like two overlaid images rather than a new one")},
            {"vae": 5, "": 4}),
    Picture("traversals", "Latent traversals", latent.traversals,
            "Each row changes a single latent variable. The first rows change the image, the last "
            "rows may change nothing.", 5),
    Picture("kl", "KL divergence of each latent variable", latent.kl_bars,
            "Blue: latent variables that depend on the item. Orange: inactive ones, which carry no "
            "information and whose KL divergence is close to zero.", 5),
    Picture("filters", "First-layer filters", images.filters,
            {"conv": "The filters of the first convolution, which are applied at every position of "
                     "an image: edges, spots, stripes.",
             "gan": "The weights of the discriminator's first units, as images.",
             "dae": "The weights of the first units, as images. Without corruption they are mostly "
                    "noise and dots, with more corruption larger pieces of shapes.",
             "": "The weights of the first units, as images. The initial weights are noise: where "
                 "noise is still visible, training has changed a unit only slightly."},
            {"gan": 9, "dae": 2, "": 6}),
    Picture("confusion", "Confusion matrix", classes.confusion,
            {"rotation": "Rows are the true rotations, columns the predicted ones. Images off the "
                         "diagonal look upright in more than one orientation.",
             "": "Rows are the true classes, columns the predicted ones. The numbers off the "
                 "diagonal show which classes have similar features."}, 6),
)


def pictures_of(model: "Model", history: list[dict[str, Any]]) -> list[Picture]:
    """All pictures that a run may have: first one for each panel of curves, then PICTURES."""
    panels = [Picture(f"curve-{panel.name}", panel.title, partial(_curve, panel), panel.caption,
                      panel.point) for panel in curves.panels_of(model, history)]
    return [*panels, *PICTURES]


def _curve(panel, history):
    return curves.curves(panel, history)
