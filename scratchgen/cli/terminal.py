"""The standard streams of the command, whatever they are: closed, a pipe, of any encoding."""

import codecs
import contextlib
import os
import sys
import warnings

from ..errors import Notice

ESCAPES = "scratchgen.escapes"


def prepare():
    """Makes the process's streams safe to print to.

    A closed stream is replaced by the null device (whose number the next file would get
    otherwise). What an encoding lacks is printed as an escape such as ``\\u56fe``; a byte of a file
    name that is not text comes out as that byte. A ``Notice`` becomes one line.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)               # takes the lowest number that is free
    codecs.register_error(ESCAPES, _escaped)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=ESCAPES)
    plain = warnings.formatwarning

    def one_line(message, category, *where, **more):
        if issubclass(category, Notice):
            return f"scratchgen: {message}\n"
        return plain(message, category, *where, **more)

    warnings.formatwarning = one_line


def _escaped(error):
    """The error handler of the streams: what cannot be encoded, as bytes or as an escape."""
    text = error.object[error.start : error.end]
    with contextlib.suppress(UnicodeEncodeError):        # a file name's bytes, as Python keeps them
        return text.encode("ascii", "surrogateescape"), error.end
    return codecs.backslashreplace_errors(error)


def is_terminal(stream):
    """Whether ``stream`` is one; None, a closed one and whatever merely has ``write`` are not."""
    with contextlib.suppress(AttributeError, ValueError):
        return bool(stream.isatty())
    return False


def flush(stream):
    """Flushes ``stream`` if it is one that can be; raises OSError where its reader has gone."""
    with contextlib.suppress(AttributeError, ValueError):
        stream.flush()
