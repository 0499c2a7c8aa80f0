"""Ctrl-C while the program is being imported: an end as any other program's, not the traceback of an import."""

import _signal  # type: ignore[import-not-found]  # `signal` itself is imported for ten milliseconds


def end_at_once() -> None:
    """Have Ctrl-C end the process, unless whoever started it has it ignored."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)


def raise_again() -> None:
    """Have Ctrl-C raise KeyboardInterrupt, as it does usually."""
    if _signal.getsignal(_signal.SIGINT) == _signal.SIG_DFL:
        _signal.signal(_signal.SIGINT, _signal.default_int_handler)
