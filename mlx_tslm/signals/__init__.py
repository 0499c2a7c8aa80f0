"""Recordings: read them from files, choose channels, cut, resample, and draw them in a terminal."""

from mlx_tslm.signals.draw import sparkline
from mlx_tslm.signals.files import FILE_TYPES, read
from mlx_tslm.signals.recording import Recording, resample, window

__all__ = ["FILE_TYPES", "Recording", "read", "resample", "sparkline", "window"]
