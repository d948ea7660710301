"""One prefill, run in numpy, by the patched libraries, or by moving blobs of sequence state."""
