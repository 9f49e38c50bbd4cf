"""Names that users of NumPy and PyTorch type, and what is written here instead.

An attribute that does not exist ends in an AttributeError of one sentence: the way that there is,
or the nearest name.
"""

import difflib

DEVICE = "arrays lie where the backend has them; choose it before they are made: " \
         "sg.use_backend('cuda') or 'numba'"
IN_PLACE = "changes in place are written t += …, or t[...] = …, of a leaf inside " \
           "'with sg.no_grad():'"
PRECISION = "t.astype(np.float32) is a constant in another precision; make the tensor in it: " \
            "sg.tensor(data, dtype=…)"
COMPARE = "write the operator: a == b, a != b, a < b, a <= b, a > b, a >= b"
ARITHMETIC = "write the operator: a + b, a - b, a * b, a / b"

RETAIN = "there is no retain_graph: for the gradients of several losses add them, (a + b)" \
         ".backward(), or keep the graph with create_graph=True"

NO_ZEROS = "gradients are forgotten, not filled with zeros: write zero_grad(), after which they " \
           "are None"
MODULE = {
    "cuda": DEVICE, "cpu": DEVICE, "to": DEVICE, "half": "a layer's precision is its option dtype=",
    "float": "a layer's precision is its option dtype=",
    "double": "a layer's precision is its option dtype=",
    "children": "write model.parts().values()", "named_children": "write model.parts()",
    "requires_grad_": "write p.requires_grad = False for p in model.parameters(), or "
    "'with model.frozen():'",
    "apply": "write a loop over model.modules()", "add_module": "assign it: model.name = module",
    "register_module": "assign it: model.name = module",
    "register_parameter": "assign it: model.name = nn.Parameter(array)",
    "register_forward_hook": "'with nn.Module.watching(f):' calls f(layer, x, y)",
    "weight": "it is w", "bias": "it is b", "get_parameter": "write named_parameters()[name]",
    "buffers": "write named_buffers().values()", "num_parameters": "write "
    "sum(p.size for p in model.parameters())", "fit": "write a loop, or sg.train",
    "predict": "call the model: model(x)", "save": "write np.savez(file, **model.state_dict())",
    "compile": "there is nothing to compile: kernels are compiled when they are first called",
}

TENSOR = {
    "zero_": "write t.grad = None for a gradient, else t[...] = 0 inside 'with sg.no_grad():'",
    "requires_grad_": "write t.requires_grad = True",
    "retain_grad": "the gradient of a computed tensor is sg.grad(loss, t)",
    "register_hook": "the gradient of any tensor is sg.grad(loss, t)",
    "grad_fn": "how a tensor was computed is t.node, with t.node.op and t.node.parents",
    "detach_": "write t = t.detach()", "clone": "t.copy() is a constant with data of its own, and "
    "sg.identity(t) another tensor that gradients flow through",
    "dim": "write t.ndim", "numel": "write t.size", "nelement": "write t.size",
    "contiguous": "leave it out: every op takes any memory layout",
    "is_contiguous": "every op takes any memory layout",
    "cuda": DEVICE, "cpu": "t.numpy() copies from the GPU; " + DEVICE, "to": DEVICE,
    "device": DEVICE, "is_cuda": DEVICE, "get_device": DEVICE, "type": PRECISION,
    "float": PRECISION, "double": PRECISION, "half": PRECISION, "bfloat16": PRECISION,
    "int": PRECISION, "long": PRECISION, "bool": PRECISION, "type_as": PRECISION,
    "add": ARITHMETIC, "sub": ARITHMETIC, "subtract": ARITHMETIC, "mul": ARITHMETIC,
    "multiply": ARITHMETIC, "div": ARITHMETIC, "divide": ARITHMETIC, "neg": "write -t",
    "eq": COMPARE, "ne": COMPARE, "lt": COMPARE, "le": COMPARE, "gt": COMPARE, "ge": COMPARE,
    "equal": "write sg.array_equal(a, b)", "isclose": "write sg.isclose(a, b)",
    "allclose": "write sg.allclose(a, b)", "mv": "write a @ b",
    "topk": "write order = t.argsort()[..., ::-1][..., :k] and t.gather(-1, order)",
    "unbind": "write list(t), or np.unstack(t, axis)", "chunk": "write np.array_split(t, n, axis)",
    "scatter_add": "write sg.scatter(x, shape, index), which adds", "scatter":
    "write sg.scatter(x, shape, index), which adds",
    "unique": "write np.unique(t.numpy())", "fill": IN_PLACE, "put": IN_PLACE,
    "itemset": IN_PLACE, "resize": "write t.reshape(shape)",
    "amax": "write t.max(axis)", "amin": "write t.min(axis)",
    **{name: f"the array has it, t.data.{name}" for name in (
        "nbytes", "itemsize", "strides", "flags", "base", "ctypes", "tobytes")},
    "conj": "tensors are real", "real": "tensors are real", "imag": "tensors are real",
    "H": "write t.T; tensors are real", "size_": "write t.shape",
    "normal_": "draw with sg.Stream(seed, name).normal(shape)",
    "uniform_": "draw with sg.Stream(seed, name).uniform(shape)",
    "inverse": "solve with np.linalg on t.numpy(); it has no derivative here",
    "apply_": "write it with ops, or on t.numpy()", "map_": "write it with ops, or on t.numpy()",
}
PACKAGE = {
    "Variable": "write sg.tensor(data, requires_grad=True)",
    "from_numpy": "write sg.tensor(array)", "as_tensor": "write sg.tensor(data)",
    "asarray": "write sg.tensor(data)", "array": "write sg.tensor(data)",
    "FloatTensor": "write sg.tensor(data)", "Parameter": "write sg.nn.Parameter(data)",
    "manual_seed": "there is no hidden generator: noise is drawn from sg.Stream(seed, name), and "
    "layers take one: stream=",
    "random": "draw with sg.Stream(seed, name).normal(shape) or .uniform(shape)",
    "rand": "draw with sg.Stream(seed, name).uniform(shape)",
    "randn": "draw with sg.Stream(seed, name).normal(shape)",
    "randint": "draw with sg.Stream(seed, name), or NumPy's generator",
    "cat": "write sg.concat([a, b], axis)", "concatenate": "write sg.concat([a, b], axis)",
    "mm": "write a @ b", "bmm": "write a @ b", "mul": ARITHMETIC, "div": ARITHMETIC,
    "sub": ARITHMETIC, "empty": "write sg.zeros(shape)", "clamp": "write sg.clip(x, low, high)",
    "permute": "write sg.transpose(x, axes)", "unsqueeze": "write sg.expand_dims(x, axis)",
    "device": DEVICE, "cuda": DEVICE, "float32": "write np.float32", "float64": "write np.float64",
    "linalg": "norms are sg.norm; the rest is NumPy's, on t.numpy()",
    "save": "write np.savez(file, **model.state_dict())",
    "autograd": "gradients are loss.backward() and sg.grad(loss, tensors)",
    "jit": "sg.capture(step) records the kernels of a step on a GPU",
    "compile": "sg.capture(step) records the kernels of a step on a GPU",
    "functional": "losses and activations are functions of sg: sg.relu, sg.cross_entropy",
    "set_grad_enabled": "write 'with sg.no_grad():' or 'with sg.enable_grad():'",
    "inference_mode": "write 'with sg.no_grad():'",
    "numel": "write t.size", "pi": "write np.pi", "inf": "write np.inf", "nan": "write np.nan",
    "topk": TENSOR["topk"], "amax": "write sg.max(x, axis)", "amin": "write sg.min(x, axis)",
    "nll_loss": "write sg.cross_entropy(logits, labels)", "l1_loss": "write sg.abs(a - b).mean()",
    "mse_loss": "write sg.mse(x, target)",
    "binary_cross_entropy_with_logits": "write sg.bce_with_logits(logits, target)",
    "Module": "it is sg.nn.Module", "Sequential": "it is sg.nn.Sequential",
    "Linear": "write sg.nn.Dense(inputs, outputs)", "Adam": "it is sg.optim.Adam",
    "SGD": "it is sg.optim.SGD",
}
OPTIM = {
    "lr_scheduler": "schedules are functions of the step: optim.cosine, exponential, warmup, "
    "piecewise", "Adadelta": "there are SGD, Adagrad, RMSprop, Adam and AdamW",
    "LBFGS": "there are SGD, Adagrad, RMSprop, Adam and AdamW",
    "Rprop": "there are SGD, Adagrad, RMSprop, Adam and AdamW",
    "Optimizer": "it is optim.Optimiser",
    "clip_grad_norm_": "write optim.clip_norm(optimiser, limit)",
    "StepLR": "write optim.piecewise(boundaries, factors)",
    "CosineAnnealingLR": "write optim.cosine(steps)",
}
RECURRENT = "there is no recurrent layer; write it as a Module whose forward has the loop"
ATTENTION = "there is no attention layer; write it as a Module with Dense, @ and sg.softmax"
ACTIVATION = "write nn.Activation('{}'), or activation='{}' in a Dense layer"
ONE_AXIS = "there are layers for images (N, H, W, C); use Conv2d with a height of 1"
NN = {
    "Linear": "write nn.Dense(inputs, outputs)", "BatchNorm1d": "write nn.BatchNorm(channels)",
    "BatchNorm2d": "write nn.BatchNorm(channels)",
    **{theirs: ACTIVATION.format(ours, ours) for theirs, ours in (
        ("ReLU", "relu"), ("LeakyReLU", "leaky_relu"), ("ELU", "elu"), ("Sigmoid", "sigmoid"),
        ("Tanh", "tanh"), ("Softplus", "softplus"))},
    "Softmax": "write nn.Function(sg.softmax); sg.cross_entropy takes logits",
    "LogSoftmax": "write nn.Function(sg.log_softmax); sg.cross_entropy takes logits",
    "GELU": "write nn.Function(f) with the formula as f",
    "MSELoss": "a loss is a function: sg.mse(x, target)",
    "CrossEntropyLoss": "a loss is a function: sg.cross_entropy(logits, labels)",
    "NLLLoss": "a loss is a function: sg.cross_entropy(logits, labels)",
    "BCEWithLogitsLoss": "a loss is a function: sg.bce_with_logits(logits, target)",
    "BCELoss": "a loss is a function, of logits: sg.bce_with_logits(logits, target)",
    "L1Loss": "write sg.abs(a - b).mean()", "Identity": "write nn.Function(sg.identity)",
    "ModuleList": "a list of modules as an attribute is enough",
    "ModuleDict": "modules as attributes, or a list of them, are enough",
    "ParameterList": "parameters as attributes of a Module are enough",
    "Conv1d": ONE_AXIS, "MaxPool1d": ONE_AXIS, "AvgPool1d": ONE_AXIS,
    "Conv3d": "there are layers for images (N, H, W, C) only",
    "Embedding": "index a matrix of parameters: w[indices]",
    "RNN": RECURRENT, "LSTM": RECURRENT, "GRU": RECURRENT,
    "MultiheadAttention": ATTENTION, "Transformer": ATTENTION,
    "LayerNorm": "write it as a Module with mean and var over the last axis",
    "GroupNorm": "write it as a Module with mean and var", "Dropout2d": "write nn.Dropout(p)",
    "UpsamplingNearest2d": "write nn.Upsample(scale)", "Unflatten": "write nn.Reshape(*shape)",
    "functional": "losses and activations are functions of sg: sg.relu, sg.cross_entropy",
    "init": "initial weights are an option of a layer: nn.Dense(…, init='he')",
    "utils": "gradients are clipped by sg.optim.clip_norm(optimiser, limit)",
}


def missing(owner, name, ways, choices):
    """The AttributeError for ``owner``'s attribute ``name``: what ``ways`` says of it, or the
    nearest of ``choices``."""
    if ways is TENSOR and name in choices:             # a property that found no array
        return AttributeError(f"{owner} made of something else than an array has no {name!r}; "
                              "write sg.tensor(data)", name=name)
    if name in ways:
        return AttributeError(f"{owner} has no {name!r}: {ways[name]}", name=name)
    if name.endswith("_") and ways is TENSOR:
        return AttributeError(f"{owner} has no {name!r}: {IN_PLACE}", name=name)
    near = difflib.get_close_matches(name[:100], list(choices), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return AttributeError(f"{owner} has no attribute {name!r}{hint}", name=name)


# Options that have other names in PyTorch.
OPTIONS = {"dim": "axis", "keepdim": "keepdims", "dims": "axis", "unbiased": "ddof", "p": "ord",
           "input": "x"}


def unknown_option(function, given, known):
    """The TypeError for options that a function does not have."""
    name = sorted(set(given) - set(known))[0]
    ours = OPTIONS.get(name)
    way = f"here it is {ours!r}" if ours in known else (
        f"choose among {', '.join(sorted(known))}" if known else "it takes none")
    return TypeError(f"{function} has no option {name!r}: {way}")
