"""The second look, measured: what it gets back, and how sure answers are."""
