"""Mutants: each plausible mistake is made on purpose, and a named check must catch it.

Every row says what is changed and which check kills it. The same check passes unchanged.
"""

import copy
import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import test_copies
import test_engine
import test_habits
import test_in_place
import test_laws
import test_ops
import test_parameters
import test_random
from scratchgen.kernels import bce, dense, philox

import scratchgen as sg
from scratchgen.engine import backward as engine
from scratchgen.engine import copies, in_place
from scratchgen.engine.backend import Family
from scratchgen.engine.tensor import Tensor
from scratchgen.nn import packing
from scratchgen.nn.module import Module
from scratchgen.nn.packing import Pack
from scratchgen.nn.structure import Structure
from scratchgen.ops import loss, reduce, running, shape, statistics
from scratchgen.ops.op import OPS, Op, named
from scratchgen.study import gradient_check

# --- the checks, by name -------------------------------------------------------------------------


def case(name, i):
    inputs, options = test_ops.CASES[name][i]
    of = test_ops.differentiable(name, inputs)
    return test_ops.function(name, inputs, options, of), [inputs[k] for k in of]


def gradient(name, i=0):
    """The gradient check of an op, on row i of its table."""
    assert {row.verdict for row in sg.gradcheck(*case(name, i)).rows} == {"OK"}


def second_order(name, i=0):
    """First order right, second order too."""
    gradient(name, i)
    assert {row.verdict for row in sg.gradcheck(*case(name, i), order=2).rows} == {"OK"}


def formula(name, i=0):
    """The forward pass equals the formula, on row i of the op's table."""
    test_ops.test_forward_is_the_formula(name, *test_ops.CASES[name][i], "numpy")


def generator():
    return np.random.default_rng(5)


def nan_fails():
    """A gradient of NaN is wrong, and so is one of a function that is NaN."""
    for f in (lambda x: x * np.nan, lambda x: sg.where(x.data > 0, np.nan, x)):
        assert not sg.gradcheck(f, np.array([1.0]), raise_error=False).ok


def roots_at_zero():
    """The subgradients of a norm and of a standard deviation that are stated."""
    for f in (np.linalg.norm, np.std):
        assert np.array_equal(test_habits.gradient(f, np.zeros(3)), np.zeros(3))


def zeros():
    """A product's gradient where a factor is 0."""
    assert np.array_equal(test_habits.gradient(running.prod, [2.0, 0.0, 3.0]), [0, 6, 0])


def kink(f, x, expected):
    """The stated convention at a kink."""
    test_ops.test_conventions_at_kinks(f, x, expected, False, "numpy")


def known_answers():
    """The published vectors of Philox."""
    for row in test_random.KNOWN_ANSWERS:
        test_random.test_published_known_answers(*row, "numpy")


sampler_law = partial(test_laws.test_reparametrize_has_the_declared_mean_and_variance, "numpy")
kl_law = partial(test_laws.test_kl_in_closed_form_is_the_monte_carlo_kl, "numpy")
dropout_law = partial(test_laws.test_dropout_keeps_the_mean_and_drops_the_fraction, 0.25, "numpy")
gaussian_law = partial(test_laws.test_gaussian_likelihood_integrates_to_one, "numpy")
bce_law = partial(test_laws.test_bce_is_the_negative_bernoulli_likelihood, "numpy", generator())
normal_law = partial(test_random.test_normal_law, "numpy")
uniform_law = partial(test_random.test_uniform_law, "numpy")
extremes = partial(test_ops.test_extreme_logits_stay_finite, np.float64, "numpy")
ancestors = partial(test_engine.test_fused_op_whose_inputs_depend_on_each_other, generator())
changed = partial(test_engine.test_a_change_between_forward_and_backward_is_detected,
                  test_engine.changed_by_optimiser, lambda x: x * x)

# --- how to mutate -------------------------------------------------------------------------------


def rule(op, i, function):
    """Replace the rule for input i."""
    def mutate(patch):
        rules = list(OPS[op].rules)
        rules[i] = named(function)
        patch.setattr(OPS[op], "rules", rules)
        patch.setattr(OPS[op], "needs", {})
    return mutate


def joint(op, change):
    """Change what a fused op's backward returns."""
    def mutate(patch):
        exact, names = OPS[op].joint
        patch.setattr(OPS[op], "joint", (lambda *a: change(
            exact(*a), SimpleNamespace(**dict(zip(names, a, strict=True)))), names))
    return mutate


def value(op, function):
    """Replace forward and formula alike, so that nothing but a law can tell."""
    def mutate(patch):
        patch.setattr(OPS[op], "forward", staticmethod(function))
        patch.setattr(OPS[op], "formula", staticmethod(function))
    return mutate


def replaced(module, name, function):
    def mutate(patch):
        patch.setattr(module, name, function)
    return mutate


def both(*mutations):
    def mutate(patch):
        for mutation in mutations:
            mutation(patch)
    return mutate


def overwrite(gradients, node, gradient, into_buffers=False):
    gradients[node] = gradient


def as_reached(roots, oldest=0):
    """Each node once, but as soon as it is reached instead of newest first."""
    order = list(roots)
    for node in order:
        order += [p for p in node.parents if p is not None and all(p is not q for q in order)]
    return order


def first_of_broadcast(dx, shape):
    dx = dx[(0,) * (dx.ndim - len(shape))]
    for axis, n in enumerate(shape):
        if n == 1 and dx.shape[axis] != 1:
            dx = np.take(dx, [0], axis)
    return dx


def take_without_copy(self, gradient):
    self.grad = gradient if isinstance(gradient, Tensor) else Tensor(gradient)


def sum_before_activation(dy, y, activation, dx, db, exact=dense.activation_backward_numpy):
    exact(dy, y, activation, dx, db)
    np.sum(dy, axis=0, out=db)


def derivative_at_double(dy, y, activation, dx, db, exact=dense.activation_backward_numpy):
    exact(dy, y * 1.001, activation, dx, db)


def bce_of_probabilities(logits, target, slope, losses, exact=bce.elements_numpy):
    exact(1 / (1 + np.exp(-logits)), target, slope, losses)


def reduce_to_rows(losses, reduction):
    return np.sum(losses) / len(losses) if reduction == "mean" else np.sum(losses)


def close_unless_apart(a, b, rtol, atol):
    return not abs(a - b) > atol + rtol * max(abs(a), abs(b))


def all_largest(x, axis):
    return x == np.max(x, axis=axis, keepdims=True)


def scatter_by_assignment(x, shape, index):
    y = np.zeros(shape, x.dtype)
    y[index] = x
    return y


def box_muller_half(b0, b1, exact=philox.box_muller):
    a, b = exact(b0, b1)
    return a / np.float32(2**0.5), b / np.float32(2**0.5)


def box_muller_twice_cosine(b0, b1, exact=philox.box_muller):
    a, _ = exact(b0, b1)
    return a, a


def kl_formula(mean, logvar):
    return 0.5 * np.sum(np.square(mean) + np.exp(logvar) - logvar, axis=1)


def kl_of_std(mean, logvar):
    return 0.5 * np.sum(np.square(mean) + np.exp(2 * logvar) - 2 * logvar - 1, axis=1)


def gaussian_without_constant(x, mean, logvar):
    terms = logvar + np.square(x - mean) * np.exp(-logvar)
    return -0.5 * np.sum(loss.per_example(terms), axis=1)


VARIANCE_FOR_STD = both(
    value("reparametrize", lambda mean, logvar, eps: mean + np.exp(logvar) * eps),
    rule("reparametrize", 1, lambda dy, logvar, eps: dy * np.exp(logvar) * eps),
    rule("reparametrize", 2, lambda dy, logvar: dy * np.exp(logvar)))

# (what is wrong, how, the check that kills it)
MUTANTS = [
    ("factor 1.001", rule("multiply", 0, lambda dy, b: 1.001 * dy * b),
     partial(gradient, "multiply")),
    ("swapped operands", rule("multiply", 0, lambda dy, a: dy * a), partial(gradient, "multiply")),
    ("sign of the second term", rule("subtract", 1, lambda dy: dy), partial(gradient, "subtract")),
    ("1/b for 1/b²", rule("divide", 1, lambda dy, b, a: -dy * a / b), partial(gradient, "divide")),
    ("b for b − 1 in the power", rule("pow", 0, lambda dy, a, b: dy * b * a**b),
     partial(gradient, "pow")),
    ("no ½ in √", rule("sqrt", 0, lambda dy, y: dy / y), partial(gradient, "sqrt")),
    ("no 1/n in mean", rule("mean", 0, lambda dy, x_shape, axis, keepdims: np.broadcast_to(
        reduce.with_axes(dy, x_shape, axis, keepdims), x_shape)), partial(gradient, "mean", 1)),
    ("dropped term of softmax", rule("softmax", 0, lambda dy, y: dy * y),
     partial(gradient, "softmax")),
    ("wrong axis", rule("log_softmax", 0, lambda dy, y: dy - np.exp(y) * np.sum(
        dy, axis=0, keepdims=True)), partial(gradient, "log_softmax")),
    ("gradient outside the bounds", rule("clip", 0, lambda dy: dy), partial(gradient, "clip")),
    ("flip not flipped back", rule("flip", 0, lambda dy: dy), partial(gradient, "flip")),
    ("repeated index assigned, not added", replaced(shape, "scattered", scatter_by_assignment),
     partial(gradient, "index", 1)),
    ("no transpose in matmul", rule("matmul", 0, lambda dy, b: dy @ np.flip(b).swapaxes(-1, -2)),
     partial(gradient, "matmul")),
    ("db without the activation's derivative",
     replaced(dense, "activation_backward_numpy", sum_before_activation),
     partial(gradient, "dense", 5)),
    ("derivative beside the output", replaced(dense, "activation_backward_numpy",
                                              derivative_at_double), partial(gradient, "dense", 4)),
    ("mean not divided in cross entropy", joint("cross_entropy", lambda found, a: [
        found[0] * (3 if a.reduction == "mean" else 1), None]),
     partial(gradient, "cross_entropy", 1)),
    ("swapped Gaussians", joint("gaussian_kl_between", lambda found, a: [
        found[2], found[1], found[0], found[3]]), partial(gradient, "gaussian_kl_between")),
    ("no ½ for the log-variance", joint("gaussian_kl", lambda found, a: [found[0], 2 * found[1]]),
     partial(gradient, "gaussian_kl")),
    ("target's gradient with the wrong sign", joint("mse", lambda found, a: [found[0], found[0]]),
     partial(gradient, "mse")),
    ("a value cut off from its graph", rule("sigmoid", 0, lambda dy, y: dy * (
        y.detach() if isinstance(y, Tensor) else y) * (1 - y)), partial(second_order, "sigmoid")),
    ("missing un-broadcast", replaced(engine, "unbroadcast", first_of_broadcast),
     partial(gradient, "add", 1)),
    ("missing sum over uses", replaced(engine, "add_to", overwrite),
     test_engine.test_uses_of_one_value_add_up),
    ("missing accumulation in the leaf", replaced(
        engine, "accumulate", lambda t, g, create_graph: setattr(t, "grad", Tensor(g.copy()))),
     test_engine.test_gradients_accumulate_until_forgotten),
    ("gradients passed on before they are complete", replaced(
        engine, "topological_order", as_reached), ancestors),
    ("gradients shared between leaves", replaced(Tensor, "store_gradient", take_without_copy),
     test_engine.test_two_leaves_that_get_the_same_gradient_do_not_share_memory),
    ("changes in place overlooked", replaced(engine, "check_unchanged", lambda op, guards: None),
     changed),
    ("a gradient that is kept, written over", replaced(packing, "ONE_REFERENCE", 99),
     partial(test_parameters.test_a_gradient_that_is_held_does_not_change, "the tensor",
             "another step", True)),
    ("a view of a gradient, written over", replaced(
        Pack, "gradients_are_referenced", lambda self: False),
     partial(test_parameters.test_a_gradient_that_is_held_does_not_change, "numpy()",
             "another step", True)),
    ("frozen parameters moved by momentum", replaced(Pack, "gather", lambda self: None),
     partial(test_parameters.test_frozen_parameters_are_moved_by_nothing, "sgd",
             {"momentum": 0.9}, False, "numpy", None)),
    ("a replaced layer overlooked", replaced(Structure, "unchanged", lambda self: True),
     partial(test_parameters.test_an_optimiser_notices_that_its_network_has_other_parameters,
             test_parameters.replace_layer, lambda n: n)),
    ("a new parameter that does not take the old one's place", replaced(
        Module, "__setattr__", object.__setattr__),
     test_parameters.test_a_new_parameter_of_the_same_shape_takes_the_place_of_the_old),
    ("an element replaced whose old value keeps its gradient", rule(
        "replace_at", 0, lambda dy, index: dy), partial(gradient, "replace_at")),
    ("an element overwritten that gets a gradient", replaced(
        shape, "last_written", lambda shape, index, dtype: dtype.type(1)),
     partial(gradient, "replace_at", 1)),
    ("memory of others changed in place", replaced(in_place.Alias, "tensors", lambda self: 1),
     partial(test_in_place.test_memory_that_others_share_is_not_changed, lambda h: h.detach())),
    ("the caller's array kept for backward", replaced(
        Op, "copy_given", classmethod(lambda cls, *a: None)),
     partial(test_in_place.test_an_array_may_be_filled_again_before_backward, "dense", "numpy")),
    ("a copy that shares its data", replaced(
        copies.Copied, "__deepcopy__", lambda self, memo: copies.restored(
            type(self), self.data, self.requires_grad, None)),
     partial(test_copies.test_a_copied_tensor_has_its_own_data_and_gradient, copy.deepcopy,
             sg.tensor, False)),
    ("NaN counted as equal", replaced(gradient_check, "close", close_unless_apart), nan_fails),
    ("variance for standard deviation", VARIANCE_FOR_STD, sampler_law),
    ("KL without −1", value("gaussian_kl", kl_formula), kl_law),
    ("KL that reads logvar as log σ", value("gaussian_kl", kl_of_std), kl_law),
    ("dropout without 1/(1 − p)", value("dropout", lambda x, uniform, *, p: np.where(
        uniform >= p, x, 0)), dropout_law),
    ("dropout of the fraction 1 − p", value("dropout", lambda x, uniform, *, p: np.where(
        uniform < p, x / p, 0)), dropout_law),
    ("Gaussian without ln 2π", value("gaussian_log_likelihood", gaussian_without_constant),
     gaussian_law),
    ("BCE on probabilities", replaced(bce, "elements_numpy", bce_of_probabilities), bce_law),
    ("mean over the rows only", replaced(loss, "reduce", reduce_to_rows),
     partial(formula, "bce_with_logits", 1)),
    ("a bias that is forgotten", replaced(dense, "bias_activation_numpy",
                                          lambda y, b, activation: None),
     partial(formula, "dense", 0)),
    ("logsumexp without the shift", value("logsumexp", lambda x, *, axis, keepdims: np.log(np.sum(
        np.exp(x), axis=axis, keepdims=keepdims))), extremes),
    ("relu'(0) = 1", rule("relu", 0, lambda dy, y: np.where(y >= 0.0, dy, 0.0)),
     partial(kink, sg.relu, [0.0], [0])),
    ("running sums not from the other end", rule("cumsum", 0, lambda dy, axis: np.cumsum(dy, axis)),
     partial(gradient, "cumsum")),
    ("cos' = sin", rule("cos", 0, lambda dy, x: dy * np.sin(x)), partial(gradient, "cos")),
    ("arctan2 of swapped operands", rule("arctan2", 0, lambda dy, a, b: dy * a / (a * a + b * b)),
     partial(gradient, "arctan2")),
    ("norms with the root's slope at 0", replaced(statistics, "root", np.sqrt), roots_at_zero),
    ("products by y/x", replaced(running, "prod", lambda x: np.exp(np.sum(np.log(x)))), zeros),
    ("every largest element gets the gradient", replaced(reduce, "first_largest", all_largest),
     partial(kink, lambda x: sg.max(x), [3.0, 5.0, 5.0], [0, 1, 0])),
    ("Philox with 9 rounds", replaced(philox, "ROUNDS", 9), known_answers),
    ("Philox with swapped multipliers", both(replaced(philox, "M0", philox.M1), replaced(
        philox, "M1", philox.M0)), known_answers),
    ("normals of variance ½", replaced(philox, "box_muller", box_muller_half), normal_law),
    ("both normals from the cosine", replaced(philox, "box_muller", box_muller_twice_cosine),
     normal_law),
    ("uniform numbers from 23 bits", replaced(philox, "UNIT", np.float32(2.0**-23)), uniform_law),
]


@pytest.mark.parametrize("mutate, check", [pytest.param(m, c, id=name) for name, m, c in MUTANTS])
def test_mutant_is_caught(mutate, check, monkeypatch):
    with sg.use_backend("numpy"):
        check()
        with monkeypatch.context() as patch:
            mutate(patch)
            forget_kernels()
            with (np.errstate(all="ignore"),
                  pytest.raises((AssertionError, pytest.fail.Exception))):
                check()
        forget_kernels()
        check()


def forget_kernels():
    """The next call looks each kernel up again, as the mutant has it."""
    for name, module in list(sys.modules.items()):
        if name.startswith("scratchgen."):
            for value in vars(module).values():
                if type(value) is Family:
                    value._versions.clear()


def test_there_are_enough_mutants():
    assert len({name for name, *_ in MUTANTS}) == len(MUTANTS) >= 40


def test_the_gradient_check_cannot_see_a_wrong_law(monkeypatch):
    """Why laws are tested apart: the sampler with σ² for σ has the right gradient of itself."""
    with sg.use_backend("numpy"):
        VARIANCE_FOR_STD(monkeypatch)
        gradient("reparametrize")
        value("gaussian_kl", kl_formula)(monkeypatch)
        gradient("gaussian_kl")
