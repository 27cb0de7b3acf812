"""The web app: a page that shows what passes between a picture and a text, on this machine."""

from isthmus.app.serve import launch

__all__ = ["launch"]
