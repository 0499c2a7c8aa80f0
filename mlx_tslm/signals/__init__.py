"""Recordings: read them from files, choose channels, cut, resample, and draw them in a terminal."""

from mlx_tslm.signals.draw import sparkline
from mlx_tslm.signals.files import FILE_TYPES, cases, read
from mlx_tslm.signals.recording import Recording, resample, window
from mlx_tslm.signals.source import How, SeveralCases

__all__ = ["FILE_TYPES", "How", "Recording", "SeveralCases", "cases", "read", "resample", "sparkline", "window"]
