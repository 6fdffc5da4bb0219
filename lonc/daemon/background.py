"""Going to the background, for init scripts that wait until the daemon serves."""

from __future__ import annotations

import os

from lonc.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

# What the new process tells the one that waits: one of these, then a text or a number.
_READY = b"ready"
_UNUSABLE = b"unusable "
_STATUS = b"status "


def detach(serve: Callable[[Callable[[], None]], int]) -> int:
    """Run `serve(ready)` in a process of its own session, and wait until it calls `ready()`.

    Returns 0 when it has, or the status that `serve` returned before that.  Raises the UsageError
    that it raised.  What it writes to the standard error stream until then is seen here.  In the
    new process nothing is returned: it exits.
    """
    reading, writing = os.pipe()
    middle = os.fork()
    if middle == 0:
        os.close(reading)
        _in_background(serve, writing)
    os.close(writing)
    os.waitpid(middle, 0)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    if told == _READY:
        return 0
    if told.startswith(_UNUSABLE):
        raise UsageError(told.removeprefix(_UNUSABLE).decode(errors="replace"))
    number = told.removeprefix(_STATUS)
    return int(number) if number.isdigit() else 1


def _in_background(serve: Callable[[Callable[[], None]], int], pipe: int) -> NoReturn:
    status = 1
    try:
        os.setsid()
        # The leader of a session could get a terminal again; its child cannot.
        if os.fork():
            os._exit(0)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        os.chdir("/")

        def ready() -> None:
            os.dup2(null, 2)
            os.write(pipe, _READY)
            os.close(pipe)

        status = serve(ready)
        os.write(pipe, _STATUS + b"%d" % status)
    except UsageError as error:
        os.write(pipe, _UNUSABLE + str(error).encode())
    except OSError:
        # It was ready, and the pipe is closed: this is its end.
        pass
    finally:
        os._exit(status)
