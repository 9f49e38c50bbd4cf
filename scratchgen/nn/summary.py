"""A network as text: the tree of its modules, and the table of its layers."""

import numpy as np

from ..context import no_grad
from ..engine.tensor import constant
from .parameters import Parameter


def tree(module):
    """One line per module: name, type, options, shapes and number of parameters."""
    parameters = module.parameters()
    total = sum(p.size for p in parameters)
    frozen = sum(p.size for p in parameters if not p.requires_grad)
    lines = [line.rstrip() for line in tree_lines(module, "", "")]
    if module.parts():
        lines.append(f"{total:,} parameters" + f" ({frozen:,} frozen)" * bool(frozen))
    return "\n".join(lines)


def tree_lines(module, indent, name):
    """The lines of a module and, further indented, of its parts."""
    parameters = module._found(Parameter)
    shapes = ", ".join(f"{n} {'x'.join(map(str, p.shape)) or '1'}"
                       + " frozen" * (not p.requires_grad) for n, p in parameters.items())
    count = f"{sum(p.size for p in parameters.values()):,} parameters" if parameters else ""
    details = "; ".join(part for part in (module.describe(), shapes, count) if part)
    title = f"{name}: {type(module).__name__}" if name else type(module).__name__
    yield indent + title + (f"({details})" if details else "")
    for part_name, part in module.parts().items():
        yield from tree_lines(part, indent + "  ", part_name)


def table(module, input_shape, dtype):
    """One row per layer: name, output shape, parameters, FLOPs. See ``Module.summary``."""
    mode, trace = module.training, []
    try:
        with no_grad(), module.watching(lambda m, x, y: trace.append((m, x.shape, y.shape))):
            module.eval()(constant(np.zeros(input_shape), dtype))
    finally:
        module.train(mode)
    names = {id(m): n for n, m in module.named_modules().items()}
    rows = [("layer", "output", "parameters", "FLOPs")]
    rows += [(f"{names.get(id(m), '')} {type(m).__name__}".strip(), str(y),
              parameter_count(m.parameters()), f"{m.flops(x, y):,}") for m, x, y in trace]
    rows.append(("total", "", parameter_count(module.parameters()),
                 f"{sum(m.flops(x, y) for m, x, y in trace):,}"))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join("  ".join(cell.ljust(w) if i < 2 else cell.rjust(w)
                               for i, (cell, w) in enumerate(zip(row, widths, strict=True)))
                     for row in rows)


def parameter_count(parameters):
    """The number of parameters, and of the frozen ones among them, as text."""
    frozen = sum(p.size for p in parameters if not p.requires_grad)
    return f"{sum(p.size for p in parameters):,}" + f" ({frozen:,} frozen)" * bool(frozen)
