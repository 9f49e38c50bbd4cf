"""The command line: the commands, and the exit status of each kind of error.

The commands contain no logic of their own: each reads its options, calls the package and prints the
result. Invalid input prints one line on standard error and gives exit status 2. A training that is
stopped by a signal writes its checkpoint and gives 128 + the signal's number (Ctrl-C: 130).
"""

import contextlib
import os
import re
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.exceptions import TyperException

from ..errors import UserError
from . import check, datasets, ledger, stored_runs, terminal, training

# The commands import what they need when they are called, so that `scratchgen --help` is fast.

app = typer.Typer(
    help="Denoising autoencoders, VAEs and GANs from scratch: train and evaluate them, generate "
    "images, draw pictures of what they learned.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (training.train, stored_runs.plot, stored_runs.report):
    app.command()(command)
app.command(name="eval")(stored_runs.evaluate)
for command in (stored_runs.sample, training.demo, training.warmup):
    app.command()(command)

data_app = typer.Typer(help="List, download and check the data sets.")
app.add_typer(data_app, name="data")
data_app.command("list")(datasets.list_sets)
data_app.command("get")(datasets.get)
data_app.command("verify")(datasets.verify)


app.command()(ledger.ledger)

check_app = typer.Typer(help="Check the package itself.")
app.add_typer(check_app, name="check")
check_app.command("claims")(check.claims)
check_app.command("laws")(check.laws)


def _print_version(requested: bool):
    if requested:
        from .. import __version__

        print(f"scratchgen {__version__}")
        raise typer.Exit()


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True,
                           help="Show the version and exit.")
    ] = False,
):
    if context.invoked_subcommand is None:
        print(context.get_help())


def main() -> None:
    """The console script ``scratchgen``."""
    terminal.prepare()
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Runs one command, given as a list of arguments, and returns its exit status."""
    try:
        _check_not_empty(arguments)
        status = app(args=arguments, prog_name="scratchgen", standalone_mode=False)
        terminal.flush(sys.stdout)
        return status if isinstance(status, int) else 0
    except UserError as error:
        return _fail(error)
    except MemoryError as error:
        reason = " ".join(str(error).split()) or "out of memory"
        return _fail(f"not enough memory ({reason}): choose a smaller model, batch or limit")
    except BrokenPipeError:  # the reader has gone, as in `scratchgen data list | head`
        # Python flushes standard output at exit, which must not raise the same error again.
        with contextlib.suppress(AttributeError, OSError, ValueError):   # not a real stream
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    except OSError as error:  # one that the package has not converted to a UserError
        where = f" {error.filename}" if error.filename else ""
        return _fail(f"cannot read or write{where} ({error.strerror or error}): check the path "
                     "and the free space on the disk")
    except TyperException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "scratchgen"
        message = " ".join(error.format_message().split())
        return _fail(f"{message} (see: {command} --help)")


def _fail(message):
    print(f"scratchgen: {message}", file=sys.stderr)
    return 2


def _check_not_empty(arguments):
    """Raises ``UserError`` for an empty argument, usually caused by an unset shell variable."""
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if argument == "" or re.fullmatch("--[a-z-]+=", argument):
            what = before if before.startswith("-") and not argument else argument.rstrip("=")
            raise UserError(f"{what or 'an argument'} is empty: expected a value; check the shell "
                            "variable it comes from, or omit it")


if __name__ == "__main__":
    main()
