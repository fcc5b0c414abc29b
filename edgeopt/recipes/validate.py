"""Validate recipe and target files: ``python -m edgeopt.recipes.validate [FILE …]``; without files, all that ship."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from edgeopt.core.documents import parse_yaml, read_text
from edgeopt.core.errors import EdgeOptError, RecipeError
from edgeopt.recipes.check import check
from edgeopt.recipes.ladder import rungs_of
from edgeopt.recipes.load import list_recipes, load_recipe
from edgeopt.targets.load import list_targets, read_target

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Check files, or everything that ships; write one line per problem to stderr, return 0 or 1."""
    problems = [p for name in arguments if (p := _problem_of(Path(name)))] if arguments else _problems_of_shipped()
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    return 1 if problems else 0


def _problem_of(path: Path) -> str | None:
    try:
        document = parse_yaml(read_text(path, error=RecipeError), where=str(path), error=RecipeError)
        if isinstance(document, dict) and "steps" in document:
            load_recipe(path)
        else:
            read_target(path)
    except EdgeOptError as error:
        return str(error)
    return None


def _problems_of_shipped() -> list[str]:
    """Each file, and that every target's default recipes exist and can be carried out for it."""
    try:
        names = {recipe.name for recipe in list_recipes()}
        targets = list_targets()
    except EdgeOptError as error:
        return [str(error)]
    problems = []
    for target in targets:
        for name, has_data in ((target.default_recipe, True), (target.float_recipe, False)):
            if name not in names:
                problems.append(f"{target.name} names the recipe {name!r}, which does not ship.")
                continue
            try:
                recipe = load_recipe(name)
                if recipe.ladder:
                    rungs_of(recipe, target, has_data=has_data, is_onnx=False)
                else:
                    check(recipe, target, has_data=has_data, is_onnx=False)
            except EdgeOptError as error:
                problems.append(str(error))
    return problems


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
