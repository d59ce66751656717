"""
Every failure that wherry reports, as one hierarchy: a class says what the caller can do, attributes hold the facts.

Each package derives what is its own from one of the eight classes below. Messages are lower case without a final
period and say what was tried, on what, and what to do.
"""


class Error(Exception):
    """Anything that wherry raises on purpose."""


class InvalidArgument(Error, ValueError):
    """The request itself is wrong; sending it again cannot help."""


class NotFound(Error, LookupError):
    """What was named does not exist."""


class AlreadyExists(Error):
    """The name, or the thing, is taken."""


class Conflict(Error):
    """The object's present state does not allow this; another call first may make it possible."""


class PermissionDenied(Error):
    """The caller lacks a right or a credential."""


class Unavailable(Error):
    """Something needed does not answer, or has no room, now; later it may."""


class Unsupported(Error):
    """This kernel, machine or version of wherry cannot do it."""


class DataLoss(Error):
    """Bytes are not what they were promised to be."""
