"""The version, spelt once: packaging, `redray --version` and `redray.__version__` read it here."""

__version__ = "0.1.0"
