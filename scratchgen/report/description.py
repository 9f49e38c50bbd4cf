"""A run's configuration in one paragraph of plain words, and the command that makes it again."""

import json
import shlex
from pathlib import PurePath

from ..train import config
from ..train.run_data import data_name

OPTIONS = {("data", "name"): "--data", ("data", "dir"): "--data-dir", ("data", "limit"): "--limit",
           ("train", "epochs"): "--epochs", ("train", "batch_size"): "--batch-size",
           ("train", "lr"): "--lr", ("run", "seed"): "--seed", ("run", "backend"): "--backend",
           ("run", "gradient"): "--gradient", ("model", "arch"): "--arch",
           ("model", "features"): "--features"}
OPTIMISERS = {"adam": "Adam", "adamw": "AdamW", "sgd": "stochastic gradient descent",
              "rmsprop": "RMSprop"}
CORRUPTIONS = {"masking": "each pixel is set to zero with probability {0:g}",
               "salt-and-pepper": "each pixel turns black or white with probability {0:g}",
               "gaussian": "Gaussian noise with standard deviation {0:g} is added"}
TERMS = {"g_loss": "loss of G", "d_real": "D’s answer on data, D(x)",
         "d_fake": "D’s answer on samples, D(G(z))", "penalty": "penalty, a part of D’s loss",
         "reconstruction": "reconstruction, −E[ln p(x|z)]", "kl": "KL(q(z|x) ‖ p(z))",
         "kl_weight": "weight of the KL", "std": "std of p(x|z)"}


def paragraph(resolved, summary, sizes=None):
    """What was trained, on what, and how. ``sizes``: (training items, test items, item shape)."""
    kind, model = resolved["run"]["model"], resolved["model"]
    words = {"dae": _autoencoder, "sdae": _stack, "vae": _variational, "gan": _adversarial,
             "probe": _probe, "classifier": _classifier}.get(kind, _any)
    told = words(kind, model)
    if sizes and len(sizes[2]) == 1:                    # points have no pixels
        told = told.replace("pixel", "coordinate")
    return " ".join((_data(resolved, sizes), told, _training(resolved, summary)))


def term(name, kinds):
    """What a term of the metrics is called in a table about models of these kinds."""
    if name == "loss" and "gan" in kinds:
        return "loss of D" if set(kinds) == {"gan"} else "loss (GAN: of D)"
    return TERMS.get(name, name.replace("_", " "))


def _data(resolved, sizes):
    data, text = resolved["data"], f"The data are {data_name(resolved)}"
    if sizes:
        train, test, shape = sizes
        what = (f"points in {shape[0]} dimension{'s' * (shape[0] > 1)}" if len(shape) == 1 else
                f"images of {shape[1]}×{shape[0]} pixels{' in colour' * (shape[2] == 3)}")
        text += f": {train:,} {what} to train on, {test:,} to test on"
    how = {"threshold": "made black and white", "static": "made black and white by chance, once",
           "dynamic": "made black and white by chance, anew in every epoch"}
    if data.get("binarize", "none") in how:
        text += f", {how[data['binarize']]}"
    return text + "."


def _form(model):
    """The layers in words."""
    if model.get("arch") == "conv":
        return _convolutions(2)
    sizes = model.get("hidden", [])
    sizes = [*model.get("layers", []), *(sizes if isinstance(sizes, list) else [sizes])]
    return _layers(sizes)


def _convolutions(count):
    number = {1: "one", 2: "two", 3: "three", 4: "four"}.get(count, str(count))
    return f"{number} convolution{'s' * (count != 1)} of stride 2"


def _layers(sizes):
    if not sizes or sizes == [0]:
        return "no hidden layer"
    if len(sizes) == 1:
        return f"one hidden layer of {sizes[0]:,} units"
    return f"hidden layers of {', '.join(f'{n:,}' for n in sizes[:-1])} and {sizes[-1]:,} units"


def _corruption(model):
    level = model.get("level", 0)
    if not level:
        return "Its input is not corrupted, so nothing keeps it from copying"
    template = CORRUPTIONS.get(model.get("corruption"), "the input is corrupted ({0:g})")
    return f"On the way in {template.format(level)}; the target is the clean item"


def _distance(model):
    return {"mse": "squared error"}.get(model.get("loss"), "cross-entropy")


def _autoencoder(kind, model):
    code = f", its code has {model['hidden']:,} units" if model.get("arch") == "conv" else ""
    tied = ", with the same weights on the way back" if model.get("tied") else ""
    return (f"The model is a denoising autoencoder with {_form(model)}{code} "
            f"({model.get('activation')}){tied}. {_corruption(model)}; the distance is "
            f"{_distance(model)}.")


def _stack(kind, model):
    sizes = model.get("layers") or model.get("hidden") or []
    sizes = sizes if isinstance(sizes, list) else [sizes]
    before = model.get("pretrain", model.get("pretrain_epochs", True))
    epochs = model.get("pretrain_epochs", 0)
    how = (f"Each layer was first trained for {epochs} epoch{'s' * (epochs != 1)} as a denoising "
           "autoencoder on the clean codes of the one below; then a logistic layer was put on top "
           "and everything trained on the labels."
           if before else "For comparison no layer was trained before: everything started from "
           "random weights and saw the labels at once.")
    kept = " The weights that did best on items held out were kept." * bool(model.get("validation"))
    return f"The model is a stacked denoising autoencoder with {_layers(sizes)}. {how}{kept}"


def _variational(kind, model):
    latent, beta = model.get("latent"), model.get("beta", 1.0)
    makes = {"gaussian": "a Gaussian for each pixel, all of one fixed width",
             "learned-variance": "a Gaussian for each pixel, all of one learned width"}.get(
                 model.get("decoder"), "the probability of each pixel")
    form = {"linear": "no hidden layer", "conv": _convolutions(len(model.get("channels", ())))}.get(
        model.get("arch"), _form({"hidden": model.get("hidden", [])}))
    text = (f"The model is a variational autoencoder with {form}, and a code of {latent} "
            f"latent{'s' * (latent != 1)} with the prior N(0, I); its decoder gives {makes}. ")
    many = model.get("samples", 1)
    if model.get("objective") == "iwae":
        text += f"It descends minus the importance-weighted bound with {many} samples"
    else:
        text += "It descends minus the lower bound on ln p(x)"
        text += f", with the KL weighted {beta:g}" if beta != 1 else ""
        text += f", estimated with {many} samples" if many > 1 else ""
    if model.get("warmup"):
        text += f"; the KL grows to its weight over {model['warmup']} epochs"
    if model.get("free_bits"):
        text += f"; {model['free_bits']:g} nats of each latent are free"
    return text + "."


def _adversarial(kind, model):
    game = {"non-saturating": "the non-saturating form of the original game",
            "minimax": "the original minimax game", "least-squares": "the least-squares game",
            "wasserstein": "the Wasserstein game"}.get(model.get("loss"), model.get("loss"))
    if model.get("arch") == "conv":
        nets = "a convolutional generator and discriminator after DCGAN, with batch norm"
    else:
        nets = (f"a generator with {_layers(model.get('generator', []))} and a discriminator with "
                f"{_layers(model.get('discriminator', []))}")
    turns = f"D is updated {model.get('d_steps', 1)}×, G {model.get('g_steps', 1)}× in a turn"
    cures = [name for name in ((f"noise of {model.get('noise'):g} on what D sees"
                                if model.get("noise") else ""),
                               "dropout of what D sees" if model.get("input_dropout") else "",
                               "one-sided label smoothing" if model.get("smoothing") else "",
                               {"gradient": "a gradient penalty", "r1": "the R1 penalty"}.get(
                                   model.get("penalty"), "")) if name]
    return (f"The model is a generative adversarial network: {nets}, and noise of "
            f"{model.get('latent')} dimension{'s' * (model.get('latent') != 1)}. They play {game}; "
            f"{turns}" + (f", with {', '.join(cures)}" if cures else "") + ".")


def _probe(kind, model):
    of = f" of the run {PurePath(model['features']).name}" if model.get("features") else ""
    return f"{_semantics(model)} was trained on the frozen features{of}, to see what they hold."


def _semantics(model):
    """g_W in words."""
    hidden = model.get("hidden", 0)
    return f"A classifier with {_layers([hidden])}" if hidden else "A logistic classifier"


def _classifier(kind, model):
    what = ("by which quarter turn the image was rotated, a label that comes from the data alone"
            if model.get("labels") == "rotation" else "the given classes")
    layers = (_convolutions(2) if model.get("arch") == "conv" else _layers(model.get("layers", [])))
    features = f"{model.get('code')} features behind {layers}"
    return (f"{_semantics(model)} and its {features} were trained together, end to end, to tell "
            f"{what}.")


def _any(kind, model):
    values = ", ".join(f"{name} {_value(value)}" for name, value in model.items())
    return f"The model is a {kind} ({values})."


def _training(resolved, summary):
    train, run = resolved["train"], resolved["run"]
    epochs = summary.get("epochs", train["epochs"])
    before = " in all, pre-training included," * bool(
        resolved["model"].get("pretrain") and resolved["model"].get("pretrain_epochs"))
    text = (f"It was trained for {epochs} epoch{'s' * (epochs != 1)}{before} with "
            f"{OPTIMISERS.get(train['optimizer'], train['optimizer'])} at a learning rate of "
            f"{train['lr']:g}, {train['batch_size']} items at a time")
    if summary.get("seconds"):
        text += f", in {_time(summary['seconds'])}"
    if summary.get("parameters"):
        text += f"; it has {summary['parameters']:,} parameters"
    by = "written out by hand" if run.get("gradient") == "explicit" else "computed by the tape"
    return f"{text}. Its gradients were {by}, in {run.get('dtype')}; the seed is {run['seed']}."


def _time(seconds):
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.3g} s"


def _value(value):
    return json.dumps(value, ensure_ascii=False)


# --- again ----------------------------------------------------------------------------------------


def command(resolved):
    """The shortest command line that gives this configuration; where data lie is left open."""
    run, train = resolved["run"], resolved["train"]
    start = {"run": {"model": run["model"], "preset": run["preset"]}}
    own = config.resolve(start)["train"]["optimizer"]
    if train["optimizer"] != own:
        start["train"] = {"optimizer": train["optimizer"]}
    usual, words = config.resolve(start), ["scratchgen", "train", run["model"]]
    if run["preset"] != "default":
        words += ["--preset", run["preset"]]
    if "train" in start:
        words += ["--set", f"train.optimizer={_value(train['optimizer'])}"]
    for table, values in resolved.items():
        for name, value in values.items():
            if value != usual[table].get(name):
                words += _option(table, name, value)
    return shlex.join(words)


def _option(table, name, value):
    if (table, name) == ("data", "dir"):
        return ["--data-dir", "FOLDER"]                # a place on one machine, nobody else's
    if (table, name) in (("model", "features"), ("data", "name")):
        path = PurePath(value)
        return [OPTIONS[table, name], f"FOLDER/{path.name}" if path.is_absolute() else value]
    if (table, name) in OPTIONS:
        return [OPTIONS[table, name], value if isinstance(value, str) else _value(value)]
    return ["--set", f"{table}.{name}={_value(value)}"]
