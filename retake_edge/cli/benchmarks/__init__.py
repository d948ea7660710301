"""The benchmarks of retake-edge bench, one module each."""
