"""Plan a run before it runs: frames, cells, memory, seconds."""
