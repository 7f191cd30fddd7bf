"""The command line and the package manager."""

__version__ = "0.1.0"
