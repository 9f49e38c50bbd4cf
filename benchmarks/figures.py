"""How the numbers of the tables and charts are written."""


def digits(x):
    """A positive number with two digits at least."""
    return f"{x:.2f}" if x < 0.995 else f"{x:.1f}" if x < 10 else f"{x:,.0f}"


def milliseconds(seconds):
    return digits(1000 * seconds) if seconds >= 1e-4 else f"{1000 * seconds:.3f}"
