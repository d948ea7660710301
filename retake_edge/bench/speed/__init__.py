"""What compression costs and saves, against stock llama.cpp on the same work."""
