"""One file a family of methods, one function a published method; importing this package registers them all."""

from isthmus.methods import (  # noqa: F401
    adversarial,
    attention,
    bottleneck,
    cam,
    decomposition,
    eclip,
    games,
    gradients,
    multilayer,
    nib,
    perturbation,
    relevance,
    rollout,
    surgery,
)
from isthmus.methods.plugins import load_plugins
from isthmus.methods.registry import METHODS, Attribution, Method, get, register

__all__ = ["METHODS", "Attribution", "Method", "get", "register"]

load_plugins()
