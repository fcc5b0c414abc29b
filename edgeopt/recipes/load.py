"""Find and read recipes, and change single values of them from the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeopt.core.documents import parse_yaml, read_text, validate, write_yaml
from edgeopt.core.errors import RecipeError, nearest_first
from edgeopt.recipes.schema import Recipe

__all__ = ["dump_recipe", "is_of_steps", "list_recipes", "load_recipe", "shipped_folder"]


def load_recipe(name_or_file: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """A shipped recipe by its name, or one's own by its file, with single values replaced.

    Args:
        name_or_file: ``int8-ptq``, or a path (a ``Path``, or text that ends in ``.yaml`` or ``.yml``).
        overrides: ``KEY=VALUE`` each, the value in YAML: ``steps.quantize.observer=histogram``,
            ``measure.batch_sizes=[1, 4]``, ``limits.drop_pp=null``. A step is addressed by its name. Of a recipe with a
            ladder the steps are the rungs', and what is said of them is left to ``ladder.load_rungs``.

    Raises:
        RecipeError: There is no such recipe, it is malformed, or an override names no key of it.
    """
    path = _find(name_or_file)
    where = f"The recipe {path}" if path.parent != shipped_folder() else f"The recipe {path.stem!r}"
    document = parse_yaml(read_text(path, error=RecipeError), where=where, error=RecipeError)
    own = [one for one in overrides if not (_climbs(document) and is_of_steps(one))]
    for override in own:
        _apply(override, document, where)
    if own:
        where += f" with {', '.join(own)}"
    return validate(Recipe, document, where=where, error=RecipeError)


def is_of_steps(override: str) -> bool:
    """Whether an override changes a step's option, not the recipe around it."""
    return override.strip().startswith("steps.")


def list_recipes() -> tuple[Recipe, ...]:
    """Every shipped recipe, by name."""
    return tuple(load_recipe(name) for name in _shipped_names())


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML, every default written out; ``load_recipe`` reads it back to an equal one."""
    return write_yaml(recipe.model_dump(mode="json"))


def shipped_folder() -> Path:
    """Where the shipped recipes are: inside the wheel, or at the top of a checkout."""
    installed = Path(__file__).parent / "shipped"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "recipes"


def _shipped_names() -> list[str]:
    return sorted(path.stem for path in shipped_folder().glob("*.yaml"))


def _find(name_or_file: str | Path) -> Path:
    if isinstance(name_or_file, Path) or name_or_file.endswith((".yaml", ".yml")):
        return Path(name_or_file)
    names = _shipped_names()
    if name_or_file not in names:
        raise RecipeError(
            "There is no recipe of that name.",
            got=repr(name_or_file),
            fix=f"Shipped, nearest first: {', '.join(nearest_first(name_or_file, names))}; "
            "a recipe of your own is given by its .yaml file.",
        )
    return shipped_folder() / f"{name_or_file}.yaml"


def _climbs(document: Any) -> bool:
    return isinstance(document, dict) and bool(document.get("ladder"))


def _apply(override: str, document: Any, where: str) -> None:
    """Set one value in the parsed document, which is changed; what it means is checked with the whole."""
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not text.strip() or not all(parts):
        raise RecipeError(
            "An override cannot be read.",
            got=repr(override),
            fix="Write KEY=VALUE, for example steps.quantize.observer=histogram; null takes a value away.",
        )
    value = parse_yaml(text, where=f"The value of the override {override!r}", error=RecipeError)
    here = document
    if parts[0] == "steps" and len(parts) > 1:
        here, parts = _step_options(document, parts[1], override, where), parts[2:]
    for part in parts[:-1]:
        if isinstance(here, dict):
            here = here.setdefault(part, {})
    if not isinstance(here, dict) or not parts:
        raise RecipeError(
            "An override goes deeper or less deep than the recipe.",
            got=repr(override),
            fix="Name a single value, for example measure.threads=2.",
        )
    here[parts[-1]] = value


def _step_options(document: Any, name: str, override: str, where: str) -> Any:
    """The options of the step of that name, in place."""
    steps = document.get("steps") if isinstance(document, dict) else None
    named = [step for step in steps or () if isinstance(step, dict) and len(step) == 1]
    found = [step for step in named if name in step]
    if len(found) != 1:
        there = ", ".join(next(iter(step)) for step in named) or "none"
        raise RecipeError(
            f"{where} has {len(found) or 'no'} step{'s' if found else ''} {name!r}, so it cannot be changed.",
            got=repr(override),
            fix=f"Its steps: {there}. To add one, write a recipe file of your own.",
        )
    if found[0][name] is None:
        found[0][name] = {}
    return found[0][name]
