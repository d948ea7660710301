"""The method and a language model in plain numpy: what the engine is checked against."""
