"""Print the table of bad inputs with the message that each gets: ``python tests/end_to_end/bad_input_table.py [WORD]``.

Every case of ``bad_inputs.py`` (those whose name holds WORD, where one is given) goes through the command line in a
process of its own; the exit code is 1 when one of them did not end as it must.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from bad_inputs import CASES, Case, Unavailable, World, new_world  # noqa: E402  needs the path above
from first_user import write_mlp  # noqa: E402

EDGEOPT = [sys.executable, "-c", "from edgeopt.cli.main import main; main()"]


def main(word: str = "") -> int:
    """Print one row per case; 1 if one of them is not as it must be."""
    print("| input | exit | message |\n|---|---|---|")
    wrong = 0
    with TemporaryDirectory(prefix="bad-inputs-") as scratch:
        write_mlp(Path(scratch))
        for case in CASES:
            if word in case.name:
                with new_world(Path(scratch)) as world:
                    code, message, right = outcome(case, world, cache=Path(scratch) / "cache")
                wrong += not right
                print(f"| {case.name} | {code} | {message} |" + ("" if right else " **not as it must be**"), flush=True)
    return 1 if wrong else 0


def outcome(case: Case, world: World, cache: Path) -> tuple[str, str, bool]:
    """Exit code, message (paths shortened), and whether both are as the case wants them."""
    try:
        arguments = case.arguments(world)
    except Unavailable as reason:
        return "–", f"not run: {reason}", True
    paths = os.pathsep.join([str(HERE.parents[1]), str(HERE), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"EDGEOPT_CACHE_DIR": str(cache), "PYTHONPATH": paths} | world.environment
    done = subprocess.run([*EDGEOPT, *arguments], env=environment, capture_output=True, text=True, check=False)
    message = done.stderr[done.stderr.find("Error: ") :].strip()
    right = done.returncode == case.code and not world.marker.exists()
    right = right and all(re.search(said, message, re.DOTALL) for said in case.says)
    return str(done.returncode), shown(message, world), right


def shown(message: str, world: World) -> str:
    for path in (world.folder, world.output.parent, HERE):
        message = message.replace(f"{path}/", "").replace(str(path), path.name)
    return message.removeprefix("Error: ").replace("|", "\\|").replace("\n", "<br>")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
