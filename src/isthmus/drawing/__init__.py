"""Draws explanations: normalising, clipping and colour live here and nowhere else."""

from isthmus.drawing.figure import figure, to_png, to_svg
from isthmus.drawing.page import fragment, page

__all__ = ["figure", "fragment", "page", "to_png", "to_svg"]
