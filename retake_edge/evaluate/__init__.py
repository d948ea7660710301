"""Benchmarks of long video, and jobs over many videos: read, ask, score, resume."""
