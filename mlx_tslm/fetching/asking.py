"""Asking the Hub: again while its trouble may pass, and in a person's words where it does not."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlsplit

from mlx_tslm.errors import TSLMError
from mlx_tslm.fetching import http

_WAIT = 30  # seconds between two attempts, at most
_LOGIN = "log in with `hf auth login` or set HF_TOKEN"

# httpx's errors, by name: huggingface_hub 1 and 2 have them from two packages
_LOST = {"ConnectTimeout", "ReadTimeout", "WriteTimeout", "ReadError", "WriteError", "RemoteProtocolError"}

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class NoSuchFile(TSLMError):
    """A repository has no file of this name."""


class NotTheHub(Exception):
    """What answers is no Hub."""


class Unanswered(Exception):
    """The Hub was not reached, or has trouble: then what is on this machine counts."""

    def __init__(self, explained: TSLMError) -> None:
        self.explained = explained


def asked(repo: str, ask: Callable[[], _T], patient: bool = True, kind: str = "model") -> _T:
    """What the Hub answers; asked again, up to four times, while its trouble may pass.

    Raises:
        TSLMError: it answers that there is no such thing, or that it may not be had.
        Unanswered: it cannot be reached, or has trouble.
    """
    from huggingface_hub.utils import logging as its_logging

    its_logging.set_verbosity_error()  # its remarks would bury the one line
    attempt = 0
    while True:
        attempt += 1
        try:
            return ask()
        except TSLMError:
            raise
        except Exception as error:  # whatever the HTTP library has, with a traceback of hundreds of lines
            status = _status(error)
            lost = any(type(one).__name__ in _LOST for one in http.causes(error))
            pause = http.wished(_retry_after(error)) if status in http.PASSING else None
            wait = 2.0 ** (attempt - 1) if pause is None else pause
            passing = status in http.PASSING or (status is None and lost)
            if not (patient and passing and attempt < http.ATTEMPTS and wait <= _WAIT):
                raise _explained(error, repo, kind, pause) from None
            said = f"answers {status}" if status else http.why(error)
            _log.warning(f"{host()}: {said}; trying again in {wait:g} s")
        time.sleep(wait)


def _explained(error: Exception, repo: str, kind: str, pause: float | None) -> Exception:
    """What a failure of the Hub is to a person: a `TSLMError`, in `Unanswered` where what is here may do."""
    from huggingface_hub import errors

    at, there, status = page(repo, kind), host(), _status(error)
    said = " ".join(str(getattr(error, "server_message", "") or "").split())[:200]
    elsewhere = "give a local checkpoint (.pt) and --llm FOLDER" if kind == "model" else "try another network"
    match error:
        case errors.HFValidationError():
            return TSLMError(f"{repo!r} is no name of a Hub repository; it should look like owner/name")
        case errors.RevisionNotFoundError():
            return TSLMError(f"{repo} has no such revision; look at {at}/commits/main")
        case errors.EntryNotFoundError():
            return NoSuchFile(f"{repo} has no such file; look at {at}/tree/main")
        case errors.GatedRepoError():
            why = f"is gated: ask for access at {at}, then {_LOGIN} and try again"
        case errors.DisabledRepoError():
            why = f"is disabled: {there} has closed access to it; look at {at}, or {elsewhere}"
        case errors.OfflineModeIsEnabled():
            why = (
                f"is not on this machine, and HF_HUB_OFFLINE says that {there} cannot be reached; unset it and go "
                f"online, or {elsewhere}"
            )
        case errors.RepositoryNotFoundError():
            why = _unknown(at, there)
        case _ if isinstance(error, NotTheHub) or (status is None and isinstance(error, ValueError)):
            why = (
                f"cannot be fetched: what answers at {there} is not the Hub; sign in to the network you are in, "
                "check the proxy (HTTPS_PROXY), and HF_ENDPOINT if you set it"
            )
        case _ if status == 401:
            why = _unknown(at, there)
        case _ if status == 403:
            why = (
                f"may not be had: {there} answers 403{f' ({said})' if said else ''}; {_LOGIN} if your token lacks "
                "the right, or a proxy or firewall stands between"
            )
        case _ if status == 404:
            return NoSuchFile(f"{repo}: there is no such file at {there} (404); look at {at}/tree/main")
        case _ if status is not None:
            hint = f"wait {pause:.0f} s and try again" if pause else http.meaning(status) or f"look at {at}"
            login = f", or {_LOGIN} for more" if status == 429 else ""
            why = f"cannot be fetched: {there} answers {status}{f' ({said})' if said else ''}; {hint}{login}"
        case _:
            why = (
                f"is not on this machine, and {there} cannot be reached: {http.why(error)}; {http.remedy(error)}, "
                f"or {elsewhere}"
            )
    return Unanswered(TSLMError(f"{repo} {why}"))


def _unknown(at: str, there: str) -> str:
    from huggingface_hub import get_token

    if get_token():
        return (
            f"is not to be had with your token: there is no such repository at {there}, or the token (HF_TOKEN, "
            f"`hf auth login`) may not read it or has expired; look at {at}"
        )
    return f"is not at {there}, or it is private: look at {at}, and {_LOGIN} if it is yours"


def _status(error: Exception) -> int | None:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _retry_after(error: Exception) -> str | None:
    headers = getattr(getattr(error, "response", None), "headers", {})
    said = headers.get("Retry-After")
    return str(said) if said else None


def host() -> str:
    """Where the Hub is asked: HF_ENDPOINT's host."""
    from huggingface_hub import constants

    return urlsplit(constants.ENDPOINT).netloc.rpartition("@")[2] or constants.ENDPOINT


def page(repo: str, kind: str = "model") -> str:
    """A repository's address, at the endpoint that is asked."""
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{repo}"
