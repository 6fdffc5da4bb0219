"""The door to the steady path: the compiled part where there is one, else its pure Python twin.

The environment variable LONC_FASTPATH is read once, when this module is imported:

    auto      the compiled part if it can be loaded, else the pure one (the default)
    require   the compiled part; without it the import fails
    no        the pure part
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

_WISHES = ("auto", "require", "no")


def _choose(wish: str) -> tuple[ModuleType, str]:
    """Return the module that serves, and what `describe()` says of it."""
    if wish not in _WISHES:
        raise ImportError(f"LONC_FASTPATH={wish}: choose one of {', '.join(_WISHES)}")
    why = "LONC_FASTPATH=no"
    if wish != "no":
        try:
            import lonc._fastpath as compiled
        except ModuleNotFoundError:
            why = (
                f"no extension was built for {sys.implementation.cache_tag}; "
                "building with LONC_BUILD_EXT=require shows what it lacks"
            )
        except ImportError as error:
            why = f"the extension cannot be loaded: {error}"
        else:
            return compiled, "compiled"
        if wish == "require":
            raise ImportError(f"LONC_FASTPATH=require: {why}")
    import lonc._purepath as pure

    return pure, f"pure Python: {why}"


#: The module that has Buffer, Poller, Exchange, Link, Client, Listener and Transaction.
parts, _description = _choose(os.environ.get("LONC_FASTPATH") or "auto")


def describe() -> str:
    """Return which part serves: "compiled", or "pure Python: " and why, in one line."""
    return _description
