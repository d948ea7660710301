"""Benchmarks: which policy keeps the answers (quality, text-needle) and what it costs (speed)."""
