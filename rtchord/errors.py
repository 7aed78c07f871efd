"""The one exception a user may see: a sentence that names the value and the remedy."""

from __future__ import annotations


class UserError(Exception):
    """Bad input or a missing part of the machine; the command line prints it and exits with `exit_code`."""

    exit_code = 2
