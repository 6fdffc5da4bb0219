"""`python -m lonc` is the command `lonc`."""

from __future__ import annotations

import sys

from lonc.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
