"""First and second derivatives of every layer and of every model's loss, by its parameters."""

import numpy as np
import pytest
from checks import assert_gradients, draw, weighted

import scratchgen as sg
from scratchgen import models, nn

F64 = {"dtype": np.float64, "stream": sg.Stream(4, "layers")}
IMAGES = (3, 7, 6, 2)                    # N H W C
DENSE = nn.Dense(4, 3, "tanh", **F64)

LAYERS = {
    "dense": (nn.Dense(4, 3, "sigmoid", **F64), (5, 4)),
    "tied": (nn.Sequential(DENSE, nn.TiedDense(DENSE, "tanh")), (5, 4)),
    "conv": (nn.Conv2d(2, 5, (3, 4), stride=2, padding=1, **F64), IMAGES),
    "conv, same, groups": (nn.Conv2d(4, 6, 3, padding="same", groups=2, stream=sg.Stream(9, "w"),
                                     dtype=np.float64), (2, 3, 5, 4)),
    "conv without bias": (nn.Conv2d(2, 5, 3, dilation=2, bias=False, **F64), IMAGES),
    "transposed conv": (nn.ConvTranspose2d(2, 5, (4, 3), stride=2, padding=1, **F64), IMAGES),
    "batch norm": (nn.BatchNorm(2, dtype=np.float64), IMAGES),
    "batch norm, eval": (nn.BatchNorm(2, dtype=np.float64).eval(), IMAGES),
    "max pool": (nn.MaxPool2d(2), IMAGES),
    "avg pool": (nn.AvgPool2d((3, 2), stride=2), IMAGES),
    "upsample": (nn.Upsample(2), IMAGES),
    "flatten": (nn.Flatten(), IMAGES),
    "reshape": (nn.Reshape(12, 7), IMAGES),
    **{name: (nn.Activation(name), (5, 4)) for name in nn.Activation.NAMES},
    "dropout, eval": (nn.Dropout(0.4).eval(), (5, 4)),
}


def with_parameters(module, call):
    """``call`` as a function of the module's parameters: tensors put in their places."""
    places = [(owner, attribute, p) for p in module.parameters() for owner in module.modules()
              for attribute, value in vars(owner).items() if value is p]
    originals = module.parameters()

    def function(*parameters):
        for owner, attribute, p in places:
            index = next(i for i, original in enumerate(originals) if original is p)
            vars(owner)[attribute] = parameters[index]         # a module refuses it
        try:
            return call()
        finally:
            for owner, attribute, p in places:
                vars(owner)[attribute] = p
    return function, [p.data.copy() for p in originals]


@pytest.mark.parametrize("name", LAYERS)
def test_layer_derivatives(backend, name):
    layer, shape = LAYERS[name]
    (x,) = draw(shape, seed=1)
    assert_gradients(weighted(layer), [x], order=2)
    if layer.parameters():
        function, arrays = with_parameters(layer, lambda: weighted(layer)(sg.Tensor(x)))
        assert_gradients(function, arrays, order=2)


def test_dropout_layer_derivative_for_one_draw():
    layer = nn.Dropout(0.4, sg.Stream(1, "d"))

    def function(x):
        layer.stream.counter = 0                       # the same mask at every call
        return weighted(layer)(x)
    assert_gradients(function, draw((5, 4)), order=2)


def test_every_layer_class_is_checked():
    checked = {type(m) for layer, _ in LAYERS.values() for m in layer.modules()}
    layers = {c for c in vars(nn).values() if isinstance(c, type) and issubclass(c, nn.Module)}
    assert layers - checked == {nn.Module, nn.Function}          # the two bases


SHAPE = (4, 3, 2)
LOSSES = {
    "dae": (models.DAE, {"hidden": 3, "activation": "tanh"}),
    "dae tied": (models.DAE, {"hidden": 3, "tied": True}),
    "dae mse": (models.DAE, {"hidden": 3, "loss": "mse"}),
    "vae": (models.VAE, {"hidden": 3, "latent": 2, "beta": 0.7}),
    "gan": (models.GAN, {"latent": 2, "generator": [3], "discriminator": [4]}),
    "gan minimax": (models.GAN, {"latent": 2, "generator": [3], "discriminator": [4],
                                 "loss": "minimax"}),
}


@pytest.mark.parametrize("name", LOSSES)
def test_model_loss_derivatives(backend, name):
    """Order 2 too: the losses' Hessians along random directions."""
    model_class, settings = LOSSES[name]
    model = model_class(model_class.Config(**settings), SHAPE, dtype=np.float64)
    x = np.random.default_rng(2).uniform(0.1, 0.9, size=(5, *SHAPE))
    if model.kind == "gan":
        real, z = model.real(x), model.noise(5, sg.Stream(1, "z"))
        check_loss(model.discriminator, lambda: model.discriminator_loss(real, z)["loss"])
        check_loss(model.generator, lambda: model.generator_loss(z)["g_loss"])
    else:
        inputs = model.draw(x, sg.Streams(1))
        check_loss(model, lambda: model.loss(*inputs)["loss"])


def check_loss(network, loss):
    function, arrays = with_parameters(network, loss)
    assert_gradients(function, arrays, order=2)
