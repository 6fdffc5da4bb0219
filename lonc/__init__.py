"""lonc: a connection broker."""

__version__ = "1.0.0"
