"""The house keeps its plan: imports go one way, heavy packages stay in their rooms, files stay small."""

import ast
import importlib.util
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "edgeopt").rglob("*.py"))

# A room imports rooms of lower levels and itself. Rooms of one level are siblings and do not import each other.
LEVELS = {
    "core": 0,
    "version": 0,
    "agent": 1,
    "model": 2,
    "data": 2,
    "recipes": 2,
    "targets": 2,
    "bundle": 2,
    "compress": 3,
    "graph": 3,
    "backends": 3,
    "devices": 3,
    "measure": 3,
    "report": 4,
    "samples": 4,
    "gate": 4,
    "pipeline": 5,
    "cli": 6,
    "": 7,  # the package itself: the public names, imported on use
}
# Siblings that one does import, and why.
ALLOWED = {
    ("recipes", "targets"): "a recipe is checked against a target before work starts",
}
# Programs that travel to a device as they are; nothing imports them.
SCRIPTS = ("backends/on_device/",)
RUNTIMES = (
    *("onnxruntime", "onnxruntime_qnn", "openvino", "tensorrt", "tensorrt_rtx"),
    *("executorch", "ai_edge_litert", "litert_torch", "litert_converter", "coremltools"),
)
# Package → where it may be imported (prefixes of paths below edgeopt/).
HOMES = {
    # ExecuTorch and LiteRT compile from torch programs, which backends/torch_program writes from the ONNX graph; and
    # ExecuTorch's Python runtime takes and gives torch tensors.
    "torch": ("model/", "compress/", "graph/export", "data/", "backends/torch_program/", "agent/runners/executorch.py"),
    "torchao": ("model/", "compress/", "graph/export"),
    "asyncssh": ("devices/",),
    "playwright": ("devices/browser/",),
    "click": ("cli/",),
    "rich": ("cli/", "report/terminal", "report/inspect"),  # the terminal's renderers
} | dict.fromkeys(RUNTIMES, ("backends/", "agent/runners/"))
HEAVY = {
    "torch",
    "torchao",
    "onnx",
    "onnx_ir",
    "onnxscript",
    "pydantic",
    "numpy",
    "scipy",
    "matplotlib",
    "PIL",
    "asyncssh",
    "playwright",
    *RUNTIMES,
}


@dataclass(frozen=True)
class Import:
    """One imported module, e.g. ``edgeopt.core.errors``, and the line it stands in."""

    module: str
    line: int
    type_only: bool


def imports_of(source: str, package: str) -> Iterator[Import]:
    """Every import of a module, inside functions too; relative ones are resolved against ``package``."""
    tree = ast.parse(source)
    guarded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join(filter(None, [*package.split(".")[: len(package.split(".")) - node.level + 1], base]))
            # ``from edgeopt import targets`` imports the room, not only the package.
            modules = [f"{base}.{alias.name}" for alias in node.names] if base == "edgeopt" else [base]
        yield from (Import(module, node.lineno, id(node) in guarded) for module in modules)


def package_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts[:-1])


def room_of(module: str) -> str:
    """``edgeopt.core.errors`` → ``core``; the package itself is the room ''."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in LEVELS else ""


def direction_problems(source: str, module: str, package: str) -> list[str]:
    here = room_of(module)
    found = []
    for used in imports_of(source, package):
        if used.module.split(".")[0] != "edgeopt":
            continue
        there = room_of(used.module)
        if there == "" and used.module != "edgeopt" and LEVELS[here] == 7:
            continue
        downward = LEVELS[there] < LEVELS[here]
        if there != here and not downward and (here, there) not in ALLOWED:
            found.append(f"{module}:{used.line}: {here or 'edgeopt'} imports {used.module}")
    return found


def placement_problems(source: str, place: str, package: str) -> list[str]:
    """Heavy packages outside their homes. ``place``: the path below edgeopt/."""
    found = []
    for used in imports_of(source, package):
        top = used.module.split(".")[0]
        if top in HOMES and not used.type_only and not place.startswith(HOMES[top]):
            found.append(f"edgeopt/{place}:{used.line}: imports {top}, whose place is {', '.join(HOMES[top])}")
    return found


def stranger_problems(source: str, place: str, package: str, friends: set[str]) -> list[str]:
    """Imports that are neither of the standard library nor friends. A friend may be a dotted prefix."""
    found = []
    for used in imports_of(source, package):
        top = used.module.split(".")[0]
        friend = top in sys.stdlib_module_names or any(f"{used.module}.".startswith(f"{f}.") for f in friends)
        if not friend:
            found.append(f"edgeopt/{place}:{used.line}: imports {used.module}")
    return found


def surface_problems(source: str, place: str) -> list[str]:
    """A module that defines public names and has no ``__all__``, or one that names what is not there."""
    tree = ast.parse(source)
    defined, imported, listed, star = set(), set(), None, False
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
            if "__all__" in names:
                listed = ast.literal_eval(node.value)
            defined |= names
        elif isinstance(node, ast.Import | ast.ImportFrom):
            imported |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.If | ast.Try):
            star = True
    if listed is None:
        public = sorted(name for name in defined - imported if not name.startswith("_"))
        return [f"edgeopt/{place}: has no __all__ and defines {', '.join(public)}"] if public else []
    lazy = star or "__getattr__" in defined
    missing = sorted(set(listed) - defined - imported)
    problems = [f"edgeopt/{place}: __all__ names {', '.join(missing)}, not defined"] if missing and not lazy else []
    if len(set(listed)) < len(listed):
        problems.append(f"edgeopt/{place}: __all__ has a name twice")
    return problems


def over_files(check) -> list[str]:
    found = []
    for path in FILES:
        place = path.relative_to(ROOT / "edgeopt").as_posix()
        found += check(path.read_text(), place, package_of(path))
    return found


def module_of(place: str) -> str:
    return "edgeopt." + place.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def test_imports_go_one_way():
    assert over_files(lambda s, place, package: direction_problems(s, module_of(place), package)) == []


def test_torch_runtimes_click_and_rich_stay_in_their_rooms():
    assert over_files(placement_problems) == []


def test_core_needs_the_standard_library_and_numpy_only():
    """Except for what reads YAML, and is imported by the rooms that read YAML."""
    yaml_readers = {"core/documents.py", "core/strict_yaml.py"}

    def check(source, place, package):
        if not place.startswith("core/"):
            return []
        friends = {"numpy", "edgeopt.core"} | ({"yaml", "pydantic"} if place in yaml_readers else set())
        return stranger_problems(source, place, package, friends)

    assert over_files(check) == []


def test_the_agent_needs_only_itself_the_standard_library_and_numpy():
    """It is copied to devices alone; each runner imports its own runtime."""

    def check(source, place, package):
        if not place.startswith("agent/"):
            return []
        runners = set(RUNTIMES) if place.startswith("agent/runners/") else set()
        runners |= {"torch"} if place == "agent/runners/executorch.py" else set()
        return stranger_problems(source, place, package, {"numpy", "edgeopt.agent"} | runners)

    assert over_files(check) == []


def test_every_module_states_its_public_names():
    def check(source, place, package):
        return [] if place.startswith(SCRIPTS) else surface_problems(source, place)

    assert over_files(check) == []


def test_no_file_is_longer_than_four_hundred_lines():
    assert [str(p.relative_to(ROOT)) for p in FILES if len(p.read_text().splitlines()) > 400] == []


def namesakes(paths: Iterable[Path]) -> list[str]:
    """Modules of tests whose names others have. pytest imports them by their bare names: the first one found is all."""
    places = defaultdict(list)
    for path in paths:
        if path.name not in ("conftest.py", "__init__.py"):
            places[path.name].append(path)
    return [" and ".join(map(str, same)) for same in places.values() if len(same) > 1]


def test_no_two_modules_of_the_tests_have_one_name():
    assert namesakes(path.relative_to(ROOT) for path in sorted((ROOT / "tests").rglob("*.py"))) == []


@pytest.mark.parametrize("module", ["edgeopt", "edgeopt.cli.main"])
def test_importing_the_command_line_imports_nothing_heavy(module):
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not there")
    code = f"import sys; before = set(sys.modules); import {module}; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "edgeopt" in loaded
    assert loaded & HEAVY == set()
    assert module != "edgeopt" or loaded & {"click", "rich"} == set()


class TestTheChecksThemselves:
    """Each of them finds what it is for."""

    def test_an_import_upwards_is_found(self):
        found = direction_problems("from edgeopt.cli import main", "edgeopt.core.x", "edgeopt.core")
        assert found == ["edgeopt.core.x:1: core imports edgeopt.cli"]

    def test_an_import_of_a_sibling_is_found_even_inside_a_function_and_relative(self):
        source = "def f():\n    from ..graph import export\n"
        found = direction_problems(source, "edgeopt.backends.x", "edgeopt.backends")
        assert found == ["edgeopt.backends.x:2: backends imports edgeopt.graph"]

    def test_an_import_of_a_room_from_the_package_is_found(self):
        assert direction_problems("from edgeopt import cli", "edgeopt.core.x", "edgeopt.core")
        assert direction_problems("from edgeopt import core", "edgeopt.cli.x", "edgeopt.cli") == []

    def test_an_import_of_the_package_from_below_is_found(self):
        assert direction_problems("import edgeopt", "edgeopt.core.x", "edgeopt.core")

    def test_torch_outside_its_rooms_is_found_unless_only_types_need_it(self):
        assert placement_problems("import torch.fx", "gate/x.py", "edgeopt.gate")
        guarded = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\n"
        assert placement_problems(guarded, "gate/x.py", "edgeopt.gate") == []
        assert placement_problems("import torch", "graph/export_program.py", "edgeopt.graph") == []
        assert placement_problems("import torch", "graph/parity.py", "edgeopt.graph")

    def test_a_stranger_is_found(self):
        assert stranger_problems("import yaml, json", "core/x.py", "edgeopt.core", {"numpy"}) == [
            "edgeopt/core/x.py:1: imports yaml"
        ]

    def test_two_modules_of_one_name_are_found(self):
        paths = [
            Path("tests/a/nets.py"),
            Path("tests/b/nets.py"),
            Path("tests/a/conftest.py"),
            Path("tests/conftest.py"),
        ]
        assert namesakes(paths) == ["tests/a/nets.py and tests/b/nets.py"]

    def test_a_module_without_all_is_found_and_one_whose_all_lies(self):
        assert surface_problems("def f(): ...", "x.py") == ["edgeopt/x.py: has no __all__ and defines f"]
        assert surface_problems("__all__ = ['g']\ndef f(): ...", "x.py") == [
            "edgeopt/x.py: __all__ names g, not defined"
        ]
        assert surface_problems('"""Only words."""\n_private = 1', "x.py") == []
        assert surface_problems("__all__ = ['A', 'B']\nA, B = 1, 2", "x.py") == []
