"""Is everything there that an answer needs, and what to do if not."""
