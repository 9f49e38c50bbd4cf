"""The first paragraph of a report: the configuration of a run described in sentences."""

import json
from pathlib import PurePath

from ..train.run_data import data_name

OPTIMISERS = {"adam": "Adam", "adamw": "AdamW", "sgd": "stochastic gradient descent",
              "rmsprop": "RMSprop"}
BINARISATIONS = {"threshold": "with a threshold of 0.5",
                 "static": "by sampling, once before the training",
                 "dynamic": "by sampling, again in every epoch"}
CORRUPTIONS = {"masking": "each {1} is set to zero with probability {0:g}",
               "salt-and-pepper": "each {1} is set to 0 or 1 with probability {0:g}",
               "gaussian": "Gaussian noise with standard deviation {0:g} is added to each {1}"}
DECODERS = {"bernoulli": "a Bernoulli probability for each {0}",
            "gaussian": "the mean of a Gaussian for each {0}, with a fixed standard deviation",
            "learned-variance": "the mean of a Gaussian for each {0}, with one learned standard "
                                "deviation for all"}
GAN_LOSSES = {"non-saturating": "the non-saturating GAN loss", "minimax": "the minimax GAN loss",
              "least-squares": "the least-squares GAN loss",
              "wasserstein": "the Wasserstein GAN loss"}
PENALTIES = {"gradient": "a gradient penalty", "r1": "the R1 penalty"}
TERM_LABELS = {"g_loss": "loss of G", "d_real": "output of D on data, D(x)",
               "d_fake": "output of D on samples, D(G(z))",
               "penalty": "penalty, part of the loss of D",
               "reconstruction": "reconstruction, −E[ln p(x|z)]", "kl": "KL(q(z|x) ‖ p(z))",
               "kl_weight": "weight of the KL divergence", "std": "standard deviation of p(x|z)"}


def paragraph(resolved: dict, summary: dict, sizes: tuple | None = None) -> str:
    """Describes the data, the model and the training of a run.

    ``resolved``: the configuration; ``summary``: the content of summary.json; ``sizes``: (training
    items, test items, item shape), None if the data are not available.
    """
    kind, model = resolved["run"]["model"], resolved["model"]
    describe = {"dae": _autoencoder, "sdae": _stack, "vae": _variational, "gan": _adversarial,
                "probe": _probe, "classifier": _classifier}.get(kind)
    are_points = bool(sizes) and len(sizes[2]) == 1
    element = "coordinate" if are_points else "pixel"
    described = describe(model, element) if describe else _other(kind, model)
    return " ".join((_data(resolved, sizes), described, _training(resolved, summary)))


def term_label(name: str, kinds: list[str]) -> str:
    """The label of a loss term in a table that compares models of these kinds."""
    if name == "loss" and "gan" in kinds:
        return "loss of D" if set(kinds) == {"gan"} else "loss (GAN: of D)"
    return TERM_LABELS.get(name, name.replace("_", " "))


def _data(resolved, sizes):
    text = f"The data set is {data_name(resolved)}"
    if sizes:
        train, test, shape = sizes
        if len(shape) == 1:
            noun, form = "points", f"in {shape[0]} {_plural('dimension', shape[0])}"
        else:
            colour = " in colour" if shape[2] == 3 else ""
            noun, form = "images", f"of {shape[1]}×{shape[0]} pixels{colour}"
        text += f": {train:,} training {noun} and {test:,} test {noun} {form}"
    binarised = BINARISATIONS.get(resolved["data"].get("binarize"))
    return f"{text}. The pixels are binarised {binarised}." if binarised else f"{text}."


def _autoencoder(model, element):
    code = (f" and a code of {model['hidden']:,} units" if model.get("arch") == "conv" else "")
    tied = " The decoder uses the transposed weights of the encoder." if model.get("tied") else ""
    loss = {"mse": "squared error"}.get(model.get("loss"), "cross-entropy")
    return (f"The model is a denoising autoencoder with {_autoencoder_layers(model)}{code}; the "
            f"activation function is {model.get('activation')}.{tied} "
            f"{_corruption(model, element)} "
            f"The loss is the {loss} between the reconstruction and the clean input.")


def _autoencoder_layers(model):
    if model.get("arch") == "conv":
        return _convolutions(2)
    return _layers([*model.get("layers", []), model.get("hidden")])


def _corruption(model, element):
    level = model.get("level", 0)
    if not level:
        return "The input is not corrupted, so the model can learn to copy it."
    template = CORRUPTIONS.get(model.get("corruption"), "the input is corrupted ({0:g})")
    return f"Before encoding, {template.format(level, element)}."


def _stack(model, element):
    epochs = model.get("pretrain_epochs", 0)
    if model.get("pretrain"):
        steps = (f" Each layer is first trained for {epochs} {_plural('epoch', epochs)} as a "
                 "denoising autoencoder of the clean codes of the layer below. Then a logistic "
                 "layer is added on top, and the whole network is trained on the labels.")
    else:
        steps = (" For comparison, the layers are not pre-trained: the whole network is trained on "
                 "the labels from random initial weights.")
    best = (" The weights with the lowest error on held-out validation items are used."
            if model.get("validation") else "")
    return (f"The model is a stacked denoising autoencoder with {_layers(model.get('layers', []))}."
            f"{steps}{best}")


def _variational(model, element):
    latent, samples = model.get("latent"), model.get("samples", 1)
    layers = {"linear": "no hidden layer",
              "conv": _convolutions(len(model.get("channels", ())))}.get(
                  model.get("arch"), _layers(model.get("hidden", [])))
    decoder = DECODERS[model.get("decoder")].format(element)
    if model.get("objective") == "iwae":
        bound = f"the importance-weighted bound on ln p(x) with {samples} samples per item"
    else:
        bound = "the lower bound (ELBO) on ln p(x)"
        if model.get("beta", 1.0) != 1:
            bound += f", with the KL divergence weighted by {model['beta']:g}"
        if samples > 1:
            bound += f", estimated with {samples} samples per item"
    text = (f"The model is a variational autoencoder with {layers} and {latent} latent "
            f"{_plural('variable', latent)} with the prior N(0, I). The decoder outputs {decoder}. "
            f"Training maximises {bound}.")
    if model.get("warmup"):
        text += (" The weight of the KL divergence increases from 0 during the first "
                 f"{model['warmup']} epochs.")
    if model.get("free_bits"):
        text += (" The KL divergence of each latent variable counts as at least "
                 f"{model['free_bits']:g} nats.")
    return text


def _adversarial(model, element):
    noise = f"noise of {model.get('latent')} {_plural('dimension', model.get('latent'))}"
    if model.get("arch") == "conv":
        networks = (f"a convolutional generator, which transforms {noise}, and a convolutional "
                    "discriminator, both with batch normalisation as in DCGAN")
    else:
        networks = (f"a generator with {_layers(model.get('generator', []))}, which transforms "
                    f"{noise}, and a discriminator with {_layers(model.get('discriminator', []))}")
    text = (f"The model is a generative adversarial network: {networks}. It is trained with "
            f"{GAN_LOSSES.get(model.get('loss'), model.get('loss'))}; each iteration updates the "
            f"discriminator {_times(model.get('d_steps', 1))} and the generator "
            f"{_times(model.get('g_steps', 1))}.")
    measures = [
        f"noise with standard deviation {model['noise']:g} on the discriminator's input"
        if model.get("noise") else None,
        "dropout on the discriminator's input" if model.get("input_dropout") else None,
        "one-sided label smoothing" if model.get("smoothing") else None,
        PENALTIES.get(model.get("penalty")),
    ]
    measures = ", ".join(filter(None, measures))
    return f"{text} The training is stabilised by {measures}." if measures else text


def _probe(model, element):
    source = f" of the run {PurePath(model['features']).name}" if model.get("features") else ""
    return (f"{_head(model).capitalize()} was trained on the frozen features{source}, to measure "
            "how well they predict the labels.")


def _classifier(model, element):
    target = ("the rotation of each image by a multiple of 90°, a label that is derived from the "
              "data" if model.get("labels") == "rotation" else "the given class labels")
    layers = _convolutions(2) if model.get("arch") == "conv" else _layers(model.get("layers", []))
    return (f"The model is a feature extractor with {layers} and {model.get('code')} features, "
            f"followed by {_head(model)}. Both were trained together, end to end, to predict "
            f"{target}.")


def _head(model):
    """The classifier on top of the features."""
    hidden = model.get("hidden", 0)
    return f"a classifier with {_layers([hidden])}" if hidden else "a logistic classifier"


def _other(kind, model):
    values = ", ".join(f"{name} {json.dumps(value, ensure_ascii=False)}"
                       for name, value in model.items())
    return f"The model is a {kind} ({values})."


def _training(resolved, summary):
    train, run, model = resolved["train"], resolved["run"], resolved["model"]
    epochs = summary.get("epochs", train["epochs"])
    total = (" in total, including pre-training,"
             if model.get("pretrain") and model.get("pretrain_epochs") else "")
    text = (f"The training ran for {epochs} {_plural('epoch', epochs)}{total} with "
            f"{OPTIMISERS.get(train['optimizer'], train['optimizer'])}, a learning rate of "
            f"{train['lr']:g} and batches of {train['batch_size']} items")
    if summary.get("seconds"):
        text += f", in {_duration(summary['seconds'])}"
    if summary.get("parameters"):
        text += f"; the model has {summary['parameters']:,} parameters"
    how = ("with the formulas derived by hand" if run.get("gradient") == "explicit"
           else "by automatic differentiation")
    return (f"{text}. The gradients were computed {how}, in {run.get('dtype')}; the random seed is "
            f"{run['seed']}.")


# -- parts of sentences


def _layers(sizes):
    if not sizes or sizes == [0]:
        return "no hidden layer"
    if len(sizes) == 1:
        return f"one hidden layer of {sizes[0]:,} units"
    return f"hidden layers of {', '.join(f'{n:,}' for n in sizes[:-1])} and {sizes[-1]:,} units"


def _convolutions(count):
    number = {1: "one", 2: "two", 3: "three", 4: "four"}.get(count, str(count))
    return f"{number} {_plural('convolution', count)} of stride 2"


def _plural(noun, count):
    return noun if count == 1 else f"{noun}s"


def _times(count):
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def _duration(seconds):
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.3g} s"
