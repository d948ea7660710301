"""Harnesses of the field, driven against the server: `make harness`."""
