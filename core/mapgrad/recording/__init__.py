"""Rows as files, without pickle: what a solver was asked and what became of it, to be solved again elsewhere."""

from mapgrad.recording._facts import Asked, Found
from mapgrad.recording._recorder import RECORDERS, Recorder, record
from mapgrad.recording._row import RecordedRow, read_row
from mapgrad.recording._values import find, imported

__all__ = ["RECORDERS", "Asked", "Found", "RecordedRow", "Recorder", "find", "imported", "read_row", "record"]
