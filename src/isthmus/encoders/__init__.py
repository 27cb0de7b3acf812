"""Dual encoders, and how each of their towers is cut at a layer."""
