"""The errors that Isthmus raises. Every message is one sentence that says what is wrong and how to mend it."""

from __future__ import annotations


class IsthmusError(Exception):
    """Base of all errors that a user can cause and mend; the command line prints its message alone."""


class InputError(IsthmusError):
    """A picture, text, array or folder that cannot be used as it is."""


class OptionError(IsthmusError, ValueError):
    """An option with a value that makes no sense, such as a layer that the model does not have."""


class ModelError(IsthmusError):
    """A model that cannot be found, is of an unknown kind, or gives values that are not finite."""


class SaveError(IsthmusError):
    """A result that could not be written to, or read from, the disk."""
