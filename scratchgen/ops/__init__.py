"""The ops, as functions of tensors: ``exp``, ``conv2d``, … one for every class in these files.

A file's own function of an op's name is public as it stands; an op without one gets the function
that passes its inputs on. Defining an op is therefore all it takes to publish it.
"""

import importlib
import inspect
import pkgutil

from .op import OPS


def public_functions():
    """Name → function, of every file in this folder."""
    found = {}
    for file in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{file.name}")
        for name, value in vars(module).items():
            if inspect.isfunction(value) and value.__module__ == module.__name__ and (
                    name in OPS or name in getattr(module, "PUBLIC", ())):
                found[name] = value
    for name, op in OPS.items():
        if name not in found:
            found[name] = function_of(op)
    return found


def function_of(op):
    """The plain function of an op whose inputs are all it takes."""
    def function(*inputs):
        if len(inputs) != count:
            raise TypeError(f"{op.name} takes {count} input{'s' * (count > 1)} "
                            f"({', '.join(op.inputs)}), and {len(inputs)} were given")
        return op.apply(*inputs)

    count = len(op.inputs)

    function.__name__ = function.__qualname__ = op.name
    function.__doc__ = inspect.getdoc(op)
    function.__signature__ = inspect.signature(op.formula)
    return function


globals().update(public_functions())
