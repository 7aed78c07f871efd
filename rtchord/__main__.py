"""The command `rtchord`, also as `python -m rtchord`.

Light, since the process that captures audio imports what the command was started with.
"""

import sys


def main() -> int:
    """Run the command; returns its exit code."""
    from rtchord.cli import main

    return main()


if __name__ == "__main__":
    sys.exit(main())
