"""What the state API raises."""

from __future__ import annotations


class RayStateApiException(Exception):
    """The state of the cluster could not be read."""


class ServerUnavailable(RayStateApiException):
    """Nobody answers where the cluster should be."""


class DataSourceUnavailable(RayStateApiException):
    """A node that was asked did not answer."""
