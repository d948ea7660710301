"""The speed benchmark: costs and savings of compression against stock llama.cpp."""
