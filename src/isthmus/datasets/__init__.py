"""Readers that yield pictures with their texts."""

from isthmus.datasets.records import Failure, Record, read_records

__all__ = ["Failure", "Record", "read_records"]
