"""From a trained student to an engine that rtchord loads: ``python -m engines --help``."""
