"""Start the agent: ``python -m edgeopt.agent [--runner NAME=MODULE:FUNCTION]... [--affinity 0,1]``.

Native runtimes print to file descriptor 1. So before anything else is imported the real standard output is moved
aside for replies, and descriptor 1 is pointed at standard error.
"""

from __future__ import annotations

import os
import sys


def _main() -> int:
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n")
    requests = os.fdopen(os.dup(0), "r", encoding="utf-8")
    os.dup2(2, 1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)  # a runtime that reads standard input must not eat requests
    os.close(nothing)
    sys.stdout = sys.stderr

    import argparse  # noqa: PLC0415

    parser = argparse.ArgumentParser(prog="agent", description="Run one engine on behalf of a host.")
    parser.add_argument("--runner", action="append", default=[], metavar="NAME=MODULE:FUNCTION")
    parser.add_argument("--affinity", default="", metavar="CPU,CPU", help="logical CPUs to stay on")
    arguments = parser.parse_args()
    if arguments.affinity:
        # Before NumPy and the runtime start threads: they inherit it.
        os.sched_setaffinity(0, {int(cpu) for cpu in arguments.affinity.split(",")})

    from .runners import RUNNERS  # noqa: PLC0415
    from .server import serve  # noqa: PLC0415

    outside = dict(pair.split("=", 1) for pair in arguments.runner)
    serve(requests, replies, runners={**outside, **RUNNERS})
    return 0


if __name__ == "__main__":
    sys.exit(_main())
