"""The errors, by what is at fault: every class carries the exit code that the CLI returns.

A message names what failed, the offending value and the next step, in one sentence.

RetakeError                       1  a bug, unless it is one of these:
  ConfigError                     2  a setting or option
    SessionError                  2  a saved session
  VideoError                      3  the video
    VideoRangeError               3  the part of it that is asked for
  ModelError                      4  the model's files
    NotDownloadedError            4  (models.resolve) run `retake-edge pull`
    HubError                      4  (models.hub.errors) the hub, or the way to it
    NoModelError                  4  (catalog.choice) no model for real videos is here
  MemoryBudgetError               5  KV cells, or bytes
  NativeError                     6  the patched libraries
"""


class RetakeError(Exception):
    """Base of all errors that a user can act on; anything else is a bug (exit code 1)."""

    exit_code = 1


class ConfigError(RetakeError):
    """A setting or command-line value is wrong."""

    exit_code = 2


class SessionError(ConfigError):
    """A saved session cannot be used: damaged, foreign, or of a newer version."""


class VideoError(RetakeError):
    """The video cannot be read."""

    exit_code = 3


class VideoRangeError(VideoError):
    """The part of the video that is asked for has no picture."""


class ModelError(RetakeError):
    """The model files are missing, damaged, or of a kind that is not supported."""

    exit_code = 4


class MemoryBudgetError(RetakeError):
    """The work does not fit into the KV cells or bytes at hand."""

    exit_code = 5


class NativeError(RetakeError):
    """The patched native libraries are missing, foreign, or refused an operation."""

    exit_code = 6
