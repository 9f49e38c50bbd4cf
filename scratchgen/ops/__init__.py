"""The ops, as functions of tensors: ``exp``, ``conv2d``, … one for every class in these files.

A file's ``__all__`` names its public functions. They are functions of the package too: ``sg.exp``.
"""

from . import (
    conv,
    creation,
    elementwise,
    functions,
    joining,
    loss,
    pool,
    products,
    reduce,
    running,
    selection,
    shape,
    statistics,
    stochastic,
    values,
)
from . import dense as dense_file
from . import methods as methods  # gives tensors their methods
from . import norm as norm_file
from .conv import *
from .creation import *
from .dense import *
from .elementwise import *
from .functions import *
from .joining import *
from .loss import *
from .norm import *
from .pool import *
from .products import *
from .reduce import *
from .running import *
from .selection import *
from .shape import *
from .statistics import *
from .stochastic import *
from .values import *

__all__: list[str] = []
__all__ += conv.__all__
__all__ += creation.__all__
__all__ += dense_file.__all__
__all__ += elementwise.__all__
__all__ += functions.__all__
__all__ += joining.__all__
__all__ += loss.__all__
__all__ += norm_file.__all__
__all__ += pool.__all__
__all__ += products.__all__
__all__ += reduce.__all__
__all__ += running.__all__
__all__ += selection.__all__
__all__ += shape.__all__
__all__ += statistics.__all__
__all__ += stochastic.__all__
__all__ += values.__all__
