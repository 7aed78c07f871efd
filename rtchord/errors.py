"""The one exception a user may see: a sentence that names the value and the remedy."""

from __future__ import annotations

import argparse
import errno
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def first_problem(errors: list[Any]) -> str:
    """pydantic's first complaint as part of a sentence: ``steps=0: Input should be greater than 0``."""
    where, given = ".".join(map(str, errors[0]["loc"])), errors[0].get("input")
    value = f"={given!r}" if isinstance(given, str | int | float) and len(str(given)) <= 40 else ""
    message = errors[0]["msg"].removeprefix("Value error, ")
    return f"{where}{value}: {message}" if where else message


class UserError(Exception):
    """Bad input or a missing part of the machine; the command line prints it and exits with `exit_code`."""

    exit_code = 2


def named_path(text: str) -> Path:
    """A path of the command line, for argparse: an empty one would be the current folder, as nobody means it."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty: write a name, or leave it out")
    if "\0" in text:
        raise argparse.ArgumentTypeError(f"{text!r} holds a character that no name may hold")
    return Path(text)


def ordinary(error: Exception) -> str | None:
    """A sentence about what the operating system could not do with a file that the user named; None for other errors.

    A net below those who know more: who opens a file says what for.
    """
    if isinstance(error, UnicodeEncodeError):
        return f"cannot use {error.object!r}: it cannot be written in {error.encoding}, as it has to be here; rename it"
    if isinstance(error, RuntimeError) and "ymlink loop" in str(error):  # of pathlib, until Python 3.12
        return f"{str(error)[:1].lower()}{str(error)[1:]}; see to that and start again"
    if not isinstance(error, OSError):
        return None
    if error.filename is None and error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return None  # of something else than a file
    where = "the disk" if error.filename is None else repr(str(error.filename))
    return f"cannot use {where}: {error.strerror}; see to that and start again"


@contextmanager
def told_in_a_sentence(program: str) -> Iterator[None]:
    """Bad input inside ends the process, and so do a disk that does not do what is asked and Ctrl-C: a sentence on
    stderr and an exit code, 2 or, of Ctrl-C, 130."""
    from pydantic import ValidationError

    try:
        yield
    except UserError as error:
        print(f"{program}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except ValidationError as error:
        of_one_value = "cannot use " if error.errors()[0]["loc"] else ""
        print(f"{program}: {of_one_value}{first_problem(error.errors())}", file=sys.stderr)
        sys.exit(UserError.exit_code)
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        sentence = ordinary(error)
        if sentence is None:
            raise
        print(f"{program}: {sentence}", file=sys.stderr)
        sys.exit(UserError.exit_code)
