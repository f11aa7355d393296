"""Errors that a user can cause; each message names the setting, the value and the mend in one line.

    ComityError
    ├── ConfigError      a setting is unknown, of the wrong type or out of range
    ├── DataError        a row of a data file is malformed (file, line, field, mend)
    ├── ModelError       a model, adapter or head cannot be loaded
    ├── RunError         a run directory is missing, foreign or damaged
    ├── JudgeError       too many verdicts are missing for a training step, or the judges part
    ├── ServersLost      no server is left to write dialogues
    └── SpendCapReached  the next question could cost more than is left; every paid reply is stored

The command line prints `comity: error: MESSAGE` and exits with code 2; it never shows a traceback for these.
"""


class ComityError(Exception):
    """Base of every error that a user can cause."""


class ConfigError(ComityError):
    """A setting is unknown, of the wrong type or out of range."""


class DataError(ComityError):
    """A data file is missing or one of its rows is malformed."""


class ModelError(ComityError):
    """A model, an adapter or a reward head cannot be loaded."""


class RunError(ComityError):
    """A run directory is missing, belongs to another configuration or is damaged."""


class JudgeError(ComityError):
    """Too many verdicts are missing for a training step, or the judges of a run part."""


class SpendCapReached(ComityError):
    """The next question could cost more than is left; every paid reply is stored."""


class ServersLost(ComityError):
    """No server is left to write dialogues."""
