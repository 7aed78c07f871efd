"""Accuracy, latency and cost, measured: ``python -m benchmarks --help``. Results are kept in benchmarks/results/."""
