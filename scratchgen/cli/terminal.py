"""Standard streams that can be printed to even if they are closed, a pipe, or not UTF-8."""

import codecs
import contextlib
import os
import sys
import warnings

from ..errors import Notice

ESCAPES = "scratchgen.escapes"


def prepare():
    """Makes the standard streams of the process safe to print to.

    A closed stream is replaced by the null device; otherwise the next file that is opened would
    get its descriptor. Characters that the encoding lacks are printed as escapes such as
    ``\\u56fe``; bytes of a file name that are not valid text are printed unchanged. A ``Notice`` is
    printed as one line.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)               # gets the lowest free descriptor
    codecs.register_error(ESCAPES, _escaped)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=ESCAPES)
    standard_format = warnings.formatwarning

    def one_line(message, category, *where, **more):
        if issubclass(category, Notice):
            return f"scratchgen: {message}\n"
        return standard_format(message, category, *where, **more)

    warnings.formatwarning = one_line


def _escaped(error):
    """The codec error handler of the streams: bytes of a file name unchanged, others escaped."""
    text = error.object[error.start : error.end]
    with contextlib.suppress(UnicodeEncodeError):        # bytes of a file name: surrogate escapes
        return text.encode("ascii", "surrogateescape"), error.end
    return codecs.backslashreplace_errors(error)


def is_terminal(stream):
    """Whether ``stream`` is a terminal; False for None and for a closed stream."""
    with contextlib.suppress(AttributeError, ValueError):
        return bool(stream.isatty())
    return False


def flush(stream):
    """Flushes ``stream`` if possible; ``BrokenPipeError`` if the reader of a pipe has gone."""
    with contextlib.suppress(AttributeError, ValueError):
        stream.flush()
