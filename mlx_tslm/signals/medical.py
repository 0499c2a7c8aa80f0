"""Recordings in WFDB (PhysioNet) and EDF/BDF files, through the readers of the `formats` extra."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

from mlx_tslm.errors import TSLMError
from mlx_tslm.signals.recording import Recording, find_channel


def read_wfdb(path: Path, channels: Sequence[str | int] | None) -> Recording:
    """Signals of a WFDB record in physical units, see `signals.read`. `path` is its `.hea` or `.dat`."""
    wfdb = _reader("wfdb", path)
    if not path.with_suffix(".hea").exists():
        raise TSLMError(f"{path} has no header {path.with_suffix('.hea').name} beside it")
    base = str(path.with_suffix(""))
    try:
        names = wfdb.rdheader(base).sig_name or []
        wanted = None if channels is None else [find_channel(channel, names) for channel in channels]
        record = wfdb.rdrecord(base, channels=wanted)
    except TSLMError:
        raise
    except FileNotFoundError as error:
        raise TSLMError(f"{path}: the record's file {Path(error.filename or '').name} is missing") from None
    except Exception as error:  # wfdb raises whatever its parser trips over
        raise TSLMError(f"{path} cannot be read as a WFDB record: {error or type(error).__name__}") from None
    if record.p_signal is None or record.p_signal.size == 0:
        raise TSLMError(f"{path} has no samples")
    units = tuple(unit or "" for unit in record.units)
    return Recording(record.p_signal.T, tuple(record.sig_name), float(record.fs), units)


def read_edf(path: Path, channels: Sequence[str | int] | None) -> Recording:
    """Signals of an EDF or BDF file in physical units, see `signals.read`; they must share one rate."""
    edfio = _reader("edfio", path)
    try:
        file = edfio.read_bdf(path) if path.suffix.lower() == ".bdf" else edfio.read_edf(path)
        signals = list(file.signals)
    except Exception as error:  # edfio raises whatever its parser trips over
        kind = path.suffix[1:].upper()
        raise TSLMError(f"{path} cannot be read as {kind}: {error or type(error).__name__}") from None
    names = [signal.label for signal in signals]
    if channels is not None:
        signals = [signals[find_channel(channel, names)] for channel in channels]
    if not signals:
        raise TSLMError(f"{path} has no signals")
    rates = {signal.label: float(signal.sampling_frequency) for signal in signals}
    if len(set(rates.values())) > 1:
        listed = ", ".join(f"{name} {rate:g} Hz" for name, rate in rates.items())
        raise TSLMError(f"{path}: the channels have different rates ({listed}); choose some of one rate")
    return Recording(
        [signal.data for signal in signals],
        tuple(signal.label for signal in signals),
        float(signals[0].sampling_frequency),
        tuple(signal.physical_dimension for signal in signals),
    )


def _reader(module: str, path: Path) -> ModuleType:
    try:
        return import_module(module)
    except ImportError:
        raise TSLMError(f'reading {path.suffix} files needs an extra: pip install "mlx-tslm[formats]"') from None
