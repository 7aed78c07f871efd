"""The one exception a user may see: a sentence that names the value and the remedy."""

from __future__ import annotations

from typing import Any


def first_problem(errors: list[Any]) -> str:
    """pydantic's first complaint as part of a sentence: ``steps: Input should be greater than 0``."""
    where = ".".join(map(str, errors[0]["loc"])) or "the whole"
    return f"{where}: {errors[0]['msg']}"


class UserError(Exception):
    """Bad input or a missing part of the machine; the command line prints it and exits with `exit_code`."""

    exit_code = 2
