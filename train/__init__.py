"""The two-stage training pipeline: ``python -m train --help``."""
