"""A video file, read: from its packets to pictures at the times that are asked for."""
