"""The one exception a user may see: a sentence that names the value and the remedy."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def first_problem(errors: list[Any]) -> str:
    """pydantic's first complaint as part of a sentence: ``steps: Input should be greater than 0``."""
    where = ".".join(map(str, errors[0]["loc"])) or "the whole"
    return f"{where}: {errors[0]['msg']}"


class UserError(Exception):
    """Bad input or a missing part of the machine; the command line prints it and exits with `exit_code`."""

    exit_code = 2


@contextmanager
def told_in_a_sentence(program: str) -> Iterator[None]:
    """Bad input inside, pydantic's complaints included, ends the process: a sentence on stderr and its exit code."""
    from pydantic import ValidationError

    try:
        yield
    except UserError as error:
        print(f"{program}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except ValidationError as error:
        print(f"{program}: cannot use {first_problem(error.errors())}", file=sys.stderr)
        sys.exit(UserError.exit_code)
