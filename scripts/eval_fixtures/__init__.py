"""Fixtures of the benchmarks' presets, made by the sources' own functions."""
