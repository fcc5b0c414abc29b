"""What a compile costs, stage by stage, and what its artifact costs against FP32: cold, then from the cache.

python benchmarks/stages.py                                    # the shipped example
python benchmarks/stages.py model.pt2 --target local --data my.yaml
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=str(ROOT / "examples/digits/model.pt2"))
    parser.add_argument("--target", default="local")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--runs", type=int, default=3, help="runs from the cache")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        environment = os.environ | {"EDGEOPT_CACHE_DIR": f"{scratch}/cache"}
        command = [sys.executable, "-c", "from edgeopt.cli.main import main; main()", "compile", arguments.model]
        command += ["--target", arguments.target, "--data", arguments.data, "-o", f"{scratch}/bundle", "--json"]
        walls, report = [], {}
        for _ in range(1 + arguments.runs):
            begun = time.perf_counter()
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            walls.append(time.perf_counter() - begun)
            if done.returncode not in (0, 4):
                sys.exit(done.stderr)
            if not report:
                report = json.loads(done.stdout)
    for stage in report["stages"]:
        print(f"{stage['wall']['value']:8.2f} s  {stage['name']}")
    print(f"{walls[0]:8.2f} s  the whole first run (wall, with start-up)")
    print(
        f"{sorted(walls[1:])[len(walls[1:]) // 2]:8.2f} s  the same again, from the cache (median of {arguments.runs})"
    )
    print(f"\nmeasured on {report['device']['name']}")
    for candidate in report["candidates"]:
        figures = {m["name"]: m for m in candidate["measurements"]}
        print(
            f"{candidate['id']:22} {_text(figures, 'latency_p50_ms')} {_text(figures, 'latency_ratio')}"
            f" {_text(figures, 'drop_pp')} {_text(figures, 'size_mib')}{'  shipped' if candidate['shipped'] else ''}"
        )


def _text(figures: dict[str, dict[str, object]], name: str) -> str:
    figure = figures.get(name)
    if figure is None or figure["value"] is None:
        return f"{name} -"
    interval = figure["interval"]
    bounds = f" [{interval['low']:.3g}, {interval['high']:.3g}]" if isinstance(interval, dict) else ""
    return f"{name} {figure['value']:.3g}{bounds} {figure['unit']} (n={figure['n']})"


if __name__ == "__main__":
    main()
