"""Benchmark: methods by datasets by metrics, with intervals; and the paper's tables by name."""
