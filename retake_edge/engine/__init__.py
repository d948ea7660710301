"""Features to KV cells to tokens: chunks, positions, the prefill loop, attention."""
