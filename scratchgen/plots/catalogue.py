"""The pictures of a run: which there are, what each shows, and the lecture's point it belongs to.

A picture's function names what it needs (see ``Subject``) and returns a figure, or None where
there is nothing to see: no model of this kind, no images, no two-dimensional codes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from . import classes, curves, film, images, latent, points


@dataclass(frozen=True)
class Picture:
    """``name`` of its file, ``heading`` and ``see`` (what to see, one line) of the report.

    ``see`` may differ by the model's form or kind: a dict with the key "" for all
    others. ``point`` is the number of the lecture's point, or a dict of them by kind, or None.
    """

    name: str
    heading: str
    draw: Callable
    see: str | dict
    point: int | dict | None
    suffix: str = ".png"

    def seen_in(self, kind, *forms):
        """What to see in the picture of a model of this kind and these forms.

        Forms: "mlp", "conv", …; "copy" for an autoencoder whose input is not corrupted, "rotation"
        for a classifier of turns.
        """
        if isinstance(self.see, str):
            return self.see
        return next(self.see[key] for key in (*forms, kind, "") if key in self.see)

    def point_for(self, kind):
        """The number of the lecture's point, or None."""
        return self.point.get(kind, self.point[""]) if isinstance(self.point, dict) else self.point

    @property
    def file(self):
        """The name of its file in the folder ``pictures``."""
        return self.name + self.suffix


FEATURES = ("Features of test items by class: the better they keep the classes apart, the less is "
            "left for the classifier on top to do.")

PICTURES = (
    Picture("triptych", "Clean, corrupted, decoded", images.triptych,
            {"copy": "Nothing was corrupted: to copy would be a perfect answer, and nothing about "
                     "images need be known for it.",
             "": "The target is the clean image, not the corrupted one: what was destroyed is "
                 "filled in, which copying could not do."}, 2),
    Picture("reconstructions", "Reconstructions", images.reconstructions,
            "What survives the way through the code: position, slant and class, but not every "
            "detail. The fewer latents, the smoother.", 5),
    Picture("game", "The game on a line", points.game,
            "Dotted black: the data. Green: what the generator makes, its arrows below. Light blue "
            "dashes: the best possible answer D*, blue: the learned one. If the game ends "
            "well, green lies on black and both answers at one half.", 8),
    Picture("plane", "Samples in the plane", points.plane,
            {"gan": "Dots are samples, circles or contours the data. A mode without dots has been "
                    "dropped: mode collapse. Dots between modes are like nothing in the data.",
             "": "Dots are samples, circles or contours the data: what lies between them was never "
                 "in the data."}, {"gan": 10, "": 3}),
    Picture("field", "Where points are moved", points.field,
            "Arrows from a point to its reconstruction: they climb the density of the data, since "
            "removing noise means knowing where data are.", 2),
    Picture("samples", "Samples", images.samples,
            {"vae": "New images: codes drawn from the prior, decoded. What makes it possible is "
                    "the KL: it kept the codes of images where the prior is.",
             "gan": "New images: noise through the generator. Look for images that repeat (mode "
                    "collapse) and for shapes that the data do not have.",
             "": "Random codes, decoded. Meant to look bad: nothing in training said which codes "
                 "belong to images, so the decoder never saw codes like these."},
            {"vae": 5, "gan": 7, "": 3}),
    Picture("film", "Samples over time", film.film,
            "The same random numbers after each epoch: what changes is the model.",
            {"vae": 5, "gan": 8, "": 3}, ".gif"),
    Picture("embedding", "The embedding", latent.embedding,
            {"vae": "Codes of test items by class, circles of the prior: clusters again, but "
                    "drawn to where the prior is, because the KL asks for it.",
             "rotation": "Features of upright test items by class. No class was ever told: what "
                         "there is of them was learned from telling turns.",
             "probe": FEATURES, "classifier": FEATURES, "sdae": FEATURES,
             "": "Codes of test items by class: distinct appearance, distinct codes. Nobody asked "
                 "for the space between the clusters to mean anything."},
            {"vae": 5, "probe": 6, "classifier": 6, "sdae": 6, "": 4}),
    Picture("manifold", "The latent plane", latent.manifold,
            "A decoded image at every place of the latent plane, each as probable as the next: "
            "neighbours resemble each other, classes pass into one another.", 5),
    Picture("holes", "Between two clusters", latent.holes,
            {"vae": "First and last of a row are test images, the others decode the codes between "
                    "them. The numbers say how far from any test image these are half way.",
             "": "First and last of a row are test images, the others decode the codes between "
                 "them: two images faded into one another rather than an image of its own. The "
                 "numbers say how far from any test image that is."}, {"vae": 5, "": 4}),
    Picture("traversals", "One latent at a time", latent.traversals,
            "Each row changes one latent and nothing else: the first rows change the image, the "
            "last ones perhaps nothing.", 5),
    Picture("kl", "KL of each latent", latent.kl_bars,
            "Blue latents tell images apart. One that does not is switched off (orange): saying "
            "nothing costs nothing.", 5),
    Picture("filters", "First-layer filters", images.filters,
            {"conv": "The small windows that the first convolution lays on every place of an "
                     "image: edges, spots, stripes.",
             "gan": "What the discriminator's first units look for in an image.",
             "dae": "What the first units look for. Without corruption mostly noise and dots, with "
                    "more of it larger pieces of shapes.",
             "": "What the first units look for. Noise is what they began with: where it still "
                 "shows, training changed a unit little."}, {"gan": 9, "dae": 2, "": 6}),
    Picture("confusion", "Confusion matrix", classes.confusion,
            {"rotation": "Rows are true turns, columns the answers: what lies beside the diagonal "
                         "are images that look upright more than one way.",
             "": "Rows are true classes, columns the answers: what lies beside the diagonal are "
                 "the classes whose features are alike."}, 6),
)


def pictures_of(model, history):
    """All that may be drawn of a run: curves first, one picture each, then PICTURES."""
    panels = [Picture(f"curve-{panel.name}", panel.title, partial(_curve, panel), panel.see,
                      panel.point) for panel in curves.panels_of(model, history)]
    return [*panels, *PICTURES]


def _curve(panel, history):
    return curves.curves(panel, history)
