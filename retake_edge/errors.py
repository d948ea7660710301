"""What can go wrong, by whose hands: every class carries the exit code that the CLI returns.

A message names what failed, the offending value and the next step, in one sentence.
"""


class RetakeError(Exception):
    """Base of all errors that a user can act on; anything else is a bug (exit code 1)."""

    exit_code = 1


class ConfigError(RetakeError):
    """A setting or command-line value is wrong."""

    exit_code = 2


class VideoError(RetakeError):
    """The video cannot be read."""

    exit_code = 3


class ModelError(RetakeError):
    """The model files are missing, damaged, or of a kind that is not supported."""

    exit_code = 4


class MemoryBudgetError(RetakeError):
    """The work does not fit into the KV cells or bytes at hand."""

    exit_code = 5


class NativeError(RetakeError):
    """The patched native libraries are missing, foreign, or refused an operation."""

    exit_code = 6
