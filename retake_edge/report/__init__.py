"""Pages and pictures about a video that was read."""
