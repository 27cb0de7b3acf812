"""One file a family of methods, one function a published method; importing this package registers them all."""

from isthmus.methods import attention as _attention  # noqa: F401
from isthmus.methods import cam as _cam  # noqa: F401
from isthmus.methods import nib as _nib  # noqa: F401
from isthmus.methods.registry import METHODS, Attribution, Method, get, register

__all__ = ["METHODS", "Attribution", "Method", "get", "register"]
