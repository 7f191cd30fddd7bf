"""The command line and the package manager."""


def __getattr__(name: str) -> str:
    # Read lazily: importlib.metadata costs more than most commands' own work.
    if name == "__version__":
        from importlib.metadata import version

        return version("mbpm")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
