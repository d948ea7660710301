"""Sampling that follows change, measured: which brief events of a long video any frame shows."""
