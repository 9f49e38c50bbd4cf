"""The error for invalid input, and how its message is written."""

import difflib


class UserError(ValueError):
    """Invalid input: one sentence that says what was wrong, what was expected and what to do.

    The command line prints it without a traceback and ends with exit status 2.
    """


class Notice(UserWarning):
    """A warning that the command line prints as one line."""


def unknown(kind, name, choices):
    """The error for a name that is not among ``choices``, with the nearest match if one is near."""
    choices = sorted(str(choice) for choice in choices)
    near = difflib.get_close_matches(str(name)[:100], choices, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return UserError(f"unknown {kind} {shown(name)}: {hint}choose one of {', '.join(choices)}")


def shown(value, longest=100):
    """The text of a value for a message: on one line, shortened if it is long."""
    text = repr(value)
    text = " ".join(text.split()) if "\n" in text else text
    return text if len(text) <= longest else text[:longest] + "…"
