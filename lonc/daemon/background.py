"""Going to the background, for init scripts that wait until the daemon serves."""

from __future__ import annotations

import os
import sys

from lonc.errors import ConfigError, LoncError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    Serve = Callable[[Callable[[], None]], int]

# What the new process tells the one that waits: one of these, then a text or a number.
_READY = b"ready"
_UNUSABLE = b"unusable "
_FAILED = b"failed "
_STATUS = b"status "


def detach(serve: Serve) -> int:
    """Run `serve(ready)` in a process of its own session, and wait until it calls `ready()`.

    Returns 0 when it has, or the status that `serve` returned before that.  Raises ConfigError with
    the lines of a UsageError that `serve` raised, and LoncError for any other one, or where the
    process could not be made or ended without a word.  What it writes to the standard error stream
    until then is seen here.  In the new process nothing is returned: it exits.
    """
    reading, writing = os.pipe()
    try:
        middle = os.fork()
    except OSError as error:
        os.close(reading)
        os.close(writing)
        raise LoncError(f"cannot go to the background: {error.strerror}") from None
    if middle == 0:
        os.close(reading)
        _leave(serve, writing)
    os.close(writing)
    os.waitpid(middle, 0)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    if told == _READY:
        return 0
    if told.startswith(_UNUSABLE):
        raise ConfigError(_text(told, _UNUSABLE).splitlines())
    if told.startswith(_FAILED):
        raise LoncError(_text(told, _FAILED))
    if told.startswith(_STATUS):
        return int(told.removeprefix(_STATUS))
    raise LoncError("the daemon was killed before all its sockets listened")


def _text(told: bytes, kind: bytes) -> str:
    return told.removeprefix(kind).decode(errors="replace")


def _leave(serve: Serve, pipe: int) -> NoReturn:
    """Be the leader of a new session, and leave it to a child, which never gets a terminal."""
    try:
        os.setsid()
        if os.fork() == 0:
            _run(serve, pipe)
    except OSError as error:
        _tell(pipe, _FAILED, f"cannot go to the background: {error.strerror}")
    finally:
        os._exit(0)


def _run(serve: Serve, pipe: int) -> NoReturn:
    is_ready = False
    status = 1
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.chdir("/")

    def ready() -> None:
        nonlocal is_ready
        is_ready = True
        os.dup2(null, 2)
        os.close(null)
        _tell(pipe, _READY)
        # The one that waits reads to the end.
        os.close(pipe)

    try:
        status = serve(ready)
        if not is_ready:
            _tell(pipe, _STATUS, str(status))
    except LoncError as error:
        if not is_ready:
            _tell(pipe, _UNUSABLE if isinstance(error, UsageError) else _FAILED, str(error))
    except Exception as error:
        sys.__excepthook__(type(error), error, error.__traceback__)
        sys.stderr.flush()
        if not is_ready:
            _tell(pipe, _FAILED, f"the daemon failed: {type(error).__name__}")
    finally:
        os._exit(status)


def _tell(pipe: int, kind: bytes, text: str = "") -> None:
    try:
        os.write(pipe, kind + text.encode(errors="replace"))
    except OSError:
        # The one that waited was killed: serving goes on.
        pass
