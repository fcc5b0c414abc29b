"""``edgeopt --help`` against ``python -c 'import click'``, whole processes in turn, as a ratio.

python benchmarks/startup.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

HELP = [sys.executable, "-c", "import sys; sys.argv = ['edgeopt', '--help']; from edgeopt.cli.main import main; main()"]
CLICK = [sys.executable, "-c", "import click"]
RUNS = 30


def main() -> None:
    times: dict[str, list[float]] = {"help": [], "click": []}
    for _ in range(RUNS):
        for name, command in (("help", HELP), ("click", CLICK)):
            begun = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            times[name].append((time.perf_counter() - begun) * 1e3)
    ratios = [a / b for a, b in zip(times["help"], times["click"], strict=True)]
    quartiles = statistics.quantiles(ratios, n=4)
    print(f"edgeopt --help       {statistics.median(times['help']):6.1f} ms")
    print(f"python -c 'import click' {statistics.median(times['click']):6.1f} ms")
    print(f"ratio {statistics.median(ratios):.2f}, quartiles [{quartiles[0]:.2f}, {quartiles[2]:.2f}], n={RUNS} pairs")


if __name__ == "__main__":
    main()
