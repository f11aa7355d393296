"""comity trains language models to negotiate."""

__version__ = "0.1.0"
