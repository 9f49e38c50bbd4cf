"""A call of every public name of the package, for pyright in strict mode; it is never run."""

import numpy as np

import scratchgen as sg


def engine() -> None:
    t = sg.tensor([[1.0, 2.0]], requires_grad=True)
    with sg.no_grad(), sg.use_backend("numpy"), sg.enable_grad():
        (t * 2).sum().backward()
    g: sg.Tensor | None = t.grad
    both: list[sg.Tensor] = sg.grad(t.sum(), [t])
    stream: sg.Stream = sg.Streams(1)["eps"]
    noise = sg.Stream(seed=1, name="eps").normal((2, 3))
    step = sg.capture(sg.exp)
    print(g, both, stream, noise, step(t), sg.backend(), sg.UserError("text"), sg.GradientError)
    print(sg.gradcheck, sg.load, sg.use_gemm("auto"), sg.allow_tf32, sg.use_convolution("auto"))
    print(sg.use_capture(True))
    print(sg.nn.__name__, sg.optim.__name__, sg.data.__name__, sg.models.__name__)
    print(sg.train.__name__, sg.plots.__name__, sg.study.__name__)


def methods(t: sg.Tensor, w: sg.Tensor, mask: np.ndarray) -> sg.Tensor:
    y = t @ w + 1 - 2 * t / t ** 2
    y += -abs(t)
    t[0] = 1
    y = y.sum(axis=0).mean().reshape(2, 3).view((3, 2)).transpose(1, 0).flatten(1).clip(0, 1)
    y = y.clip(max=1).expand(2, -1).masked_fill(mask, 0).masked_select(mask).softmax(axis=-1)
    number: float = float(y)
    parts: list[sg.Tensor] = t.split(2, axis=1)
    shape: tuple[int, ...] = t.shape
    largest: np.ndarray = t.argmax(axis=1)
    print(number, parts, shape, largest, t > 0, t.T, t.mT, t.numpy(), t.item(), len(t), list(t))
    return y.detach().copy().astype(np.float64)


def of_one(x: sg.Tensor) -> list[sg.Tensor]:
    y = [sg.identity(x), sg.negative(x), sg.square(x), sg.exp(x), sg.log(x), sg.log1p(x),
         sg.expm1(x), sg.sqrt(x), sg.abs(x), sg.sigmoid(x), sg.tanh(x), sg.softplus(x),
         sg.logsigmoid(x), sg.relu(x), sg.leaky_relu(x, slope=0.1), sg.elu(x, alpha=1.0),
         sg.sin(x), sg.cos(x), sg.tan(x), sg.arcsin(x), sg.arccos(x), sg.arctan(x), sg.sinh(x),
         sg.cosh(x), sg.arcsinh(x), sg.arccosh(x), sg.arctanh(x), sg.log2(x), sg.log10(x),
         sg.exp2(x), sg.cbrt(x), sg.reciprocal(x), sg.deg2rad(x), sg.rad2deg(x),
         sg.nan_to_num(x, nan=0.0), sg.affine(x, 2, 1), sg.clip(x, 0, None)]
    y += [sg.sum(x, axis=0), sg.mean(x, axis=(0, 1)), sg.max(x), sg.min(x, keepdims=True),
          sg.logsumexp(x, axis=1), sg.softmax(x), sg.log_softmax(x, axis=0), sg.cumsum(x, axis=0),
          sg.prod(x), sg.cumprod(x), sg.diff(x, 2), sg.var(x, ddof=1), sg.std(x, axis=0),
          sg.norm(x, ord=1, axis=0), sg.median(x), sg.quantile(x, [0.1, 0.9]),
          sg.percentile(x, 50), sg.average(x, weights=x), sg.ptp(x), sg.nansum(x), sg.nanmean(x)]
    return y


def of_two(a: sg.Tensor, b: np.ndarray) -> list[sg.Tensor]:
    return [sg.add(a, b), sg.subtract(a, 1), sg.multiply(2.0, a), sg.divide(a, b), sg.pow(a, 2),
            sg.maximum(a, b), sg.minimum(a, [1.0, 2.0]), sg.arctan2(a, b), sg.logaddexp(a, b),
            sg.remainder(a, b), sg.hypot(a, b), sg.where(a > 0, a, 0), sg.matmul(a, b),
            sg.dense(a, b, activation="relu"), sg.einsum("ij,jk->ik", a, b),
            sg.tensordot(a, b, axes=1), sg.dot(a, b), sg.vdot(a, b), sg.inner(a, b), sg.outer(a, b)]


def shapes(x: sg.Tensor) -> None:
    y = [sg.reshape(x, (2, -1)), sg.transpose(x, (1, 0)), sg.swapaxes(x, 0, 1),
         sg.broadcast_to(x, (4, 2, 3)), sg.flip(x, axis=0), sg.pad(x, ((0, 0), (1, 1))),
         sg.concat([x, x], axis=1), sg.stack([x, x]), sg.index(x, (0, slice(2))),
         sg.replace_at(x, 0, 1), sg.expand_dims(x, 0), sg.squeeze(x), sg.flatten(x),
         sg.scatter(x, (5, 3), [0, 1]), sg.vstack([x, x]), sg.hstack([x, x]), sg.dstack([x, x]),
         sg.column_stack([x, x]), sg.moveaxis(x, 0, -1), sg.ravel(x), sg.tile(x, (2, 1)),
         sg.repeat(x, 2, axis=0), sg.roll(x, 1), sg.atleast_1d(x), sg.atleast_2d(x),
         sg.atleast_3d(x), sg.take(x, [0, 1], axis=0), sg.take_along_axis(x, x.argsort()),
         sg.gather(x, 0, [[1]]), sg.sort(x), sg.masked_fill(x, x > 0, 0.0), sg.diagonal(x),
         sg.diag(x), sg.tril(x), sg.triu(x, 1), sg.trace(x), sg.zeros(2, 3), sg.ones((2, 3)),
         sg.full((2, 3), 1.5), sg.eye(3), sg.arange(0, 5, 2), sg.linspace(0, 1, 5),
         sg.zeros_like(x), sg.ones_like(x), sg.full_like(x, 2)]
    parts: list[sg.Tensor] = sg.split(x, 2) + sg.array_split(x, [1, 3])
    print(y, parts)


def values(x: sg.Tensor) -> None:
    y: list[np.ndarray] = [sg.argmax(x, axis=0), sg.argmin(x), sg.argsort(x), sg.any(x), sg.all(x),
                           *sg.nonzero(x), sg.isclose(x, x), sg.searchsorted(x, 0.5), sg.sign(x),
                           sg.floor(x), sg.ceil(x), sg.round(x, 2), sg.trunc(x), sg.isnan(x),
                           sg.isfinite(x), sg.isinf(x)]
    same: bool = sg.allclose(x, x) and sg.array_equal(x, x)
    print(y, same, sg.count_nonzero(x))


def layers(x: sg.Tensor, w: sg.Tensor, b: sg.Tensor) -> list[sg.Tensor]:
    return [sg.conv2d(x, w, b, stride=(2, 1), padding="same", activation="tanh"),
            sg.conv_transpose2d(x, w, stride=2), sg.conv2d_input(x, w, (8, 8)),
            sg.conv2d_weight(x, x, 3), sg.batch_norm(x, b, b), sg.normalize(x, b, b, b, b),
            sg.max_pool2d(x, 2), sg.avg_pool2d(x, (2, 3), stride=1),
            sg.avg_pool2d_input(x, (6, 6), 2), sg.upsample2d(x, 2, mode="bilinear"),
            sg.dropout(x, 0.5, x), sg.reparametrize(x, x, x)]


def losses(x: sg.Tensor) -> list[sg.Tensor]:
    return [sg.bce_with_logits(x, x, reduction="mean"), sg.mse(x, x), sg.cross_entropy(x, [1, 0]),
            sg.bernoulli_log_likelihood(x, x), sg.gaussian_log_likelihood(x, x, 0.0),
            sg.gaussian_kl(x, x), sg.gaussian_kl_between(x, x, x, x)]


CONVOLUTION_WITH_ACTIVATION = sg.convolution_layer


def network(x: sg.Tensor) -> sg.Tensor:
    model = sg.nn.Sequential(sg.nn.Dense(3, 5, activation="relu"), sg.nn.Dense(5, 2))
    optimiser = sg.optim.Adam(model.parameters(), lr=1e-3)
    optimiser.step()
    return model(x)


FOLDERS: list[object] = [
    sg.nn.INITIALISERS, sg.nn.Activation, sg.nn.AvgPool2d, sg.nn.BatchNorm, sg.nn.Buffer,
    sg.nn.Conv2d, sg.nn.ConvTranspose2d, sg.nn.Dense, sg.nn.Dropout, sg.nn.Flatten, sg.nn.Function,
    sg.nn.MaxPool2d, sg.nn.Module, sg.nn.Parameter, sg.nn.Reshape, sg.nn.Sequential,
    sg.nn.TiedDense, sg.nn.Upsample, sg.nn.dcgan, sg.nn.glorot, sg.nn.glorot_sigmoid, sg.nn.he,
    sg.nn.initial, sg.nn.initial_bias, sg.nn.pytorch,
    sg.optim.OPTIMISERS, sg.optim.SGD, sg.optim.Adagrad, sg.optim.Adam, sg.optim.AdamW,
    sg.optim.Optimiser, sg.optim.RMSprop, sg.optim.clip_norm, sg.optim.clip_value, sg.optim.cosine,
    sg.optim.exponential, sg.optim.make, sg.optim.options_of, sg.optim.piecewise, sg.optim.warmup,
    sg.data.BINARIZATIONS, sg.data.CORRUPTIONS, sg.data.DENSITIES, sg.data.Corrupted,
    sg.data.Dataset, sg.data.Gaussian, sg.data.Loader, sg.data.Masking, sg.data.Mixture,
    sg.data.Points, sg.data.SaltAndPepper, sg.data.bayes_accuracy, sg.data.binarize,
    sg.data.cache_folder, sg.data.corruption_named, sg.data.density_named, sg.data.describe,
    sg.data.gaussian, sg.data.get, sg.data.grid, sg.data.image_set, sg.data.jensen_shannon,
    sg.data.load, sg.data.mixture1d, sg.data.mode_report, sg.data.moons, sg.data.names,
    sg.data.optimal_discriminator, sg.data.ring, sg.data.value_of_game, sg.data.verify,
    sg.models.DAE, sg.models.GAN, sg.models.MODELS, sg.models.SDAE, sg.models.VAE,
    sg.models.Classifier, sg.models.Model, sg.models.Probe,
    sg.train.Interrupted, sg.train.Progress, sg.train.Summary, sg.train.dataset_of,
    sg.train.evaluate, sg.train.evaluate_run, sg.train.load, sg.train.train,
    sg.plots.PICTURES, sg.plots.WORDS, sg.plots.HeldOut, sg.plots.Picture, sg.plots.Subject,
    sg.plots.curves, sg.plots.draw_run, sg.plots.filters_by_corruption, sg.plots.first_weights,
    sg.plots.keep_samples, sg.plots.mosaic, sg.plots.overview, sg.plots.panels_of,
    sg.plots.pictures_of, sg.plots.save_grid, sg.plots.subject_of,
    sg.study.CLAIMS, sg.study.Comparison, sg.study.GradientError, sg.study.check_claims,
    sg.study.gradcheck, sg.study.statement, sg.study.LAWS, sg.study.Laws, sg.study.Trial,
    sg.study.check_laws, sg.study.FALSE_ALARMS, sg.study.Ledger, sg.study.ledger, sg.study.observe,
]
