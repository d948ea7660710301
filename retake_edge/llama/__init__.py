"""The patched llama.cpp: its libraries, models, contexts, and what a cache gives away."""
