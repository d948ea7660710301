"""What a run takes, before it runs: frames, cells, memory, seconds."""
