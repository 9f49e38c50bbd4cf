"""The one kind of error that a user's input can cause, and how it is worded."""

import difflib


class UserError(ValueError):
    """Bad input: one sentence that says what was wrong, what was expected and what to do.

    The command line prints it without a traceback and ends with exit status 2.
    """


class Notice(UserWarning):
    """Something that a user should know and that stops nothing; the command line prints a line."""


def unknown(kind, name, choices):
    """The error for a name that is not among ``choices``, with the nearest match if one is near."""
    choices = sorted(str(choice) for choice in choices)
    near = difflib.get_close_matches(str(name)[:100], choices, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return UserError(f"unknown {kind} {shown(name)}: {hint}choose one of {', '.join(choices)}")


def shown(value, longest=100):
    """A value as it stands in a sentence: on one line, and cut where it goes on for long."""
    text = repr(value)
    text = " ".join(text.split()) if "\n" in text else text
    return text if len(text) <= longest else text[:longest] + "…"
