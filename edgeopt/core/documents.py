"""YAML files that people write by hand: read strictly, validated whole, their problems said in plain words.

The one file of ``core`` that needs more than NumPy: recipes and targets both read this way, and neither may import
the other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, Tag, ValidationError

from edgeopt.core.errors import EdgeOptError, nearest_first
from edgeopt.core.strict_yaml import StrictDumper, StrictLoader

__all__ = ["SIZE_LIMIT", "parse_yaml", "read_text", "validate", "write_yaml"]

SIZE_LIMIT = 64 * 1024
"""Bytes of the longest document that is read: ten times the longest that makes sense."""

M = TypeVar("M", bound=BaseModel)


def read_text(path: Path, *, error: type[EdgeOptError]) -> str:
    """Read a small UTF-8 file.

    Raises:
        error: There is no such file, it cannot be read, is longer than ``SIZE_LIMIT`` or is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            content = file.read(SIZE_LIMIT + 1)
    except OSError as reason:
        raise error("The file cannot be read.", got=f"{path} ({reason.strerror})", fix="Check its path.") from reason
    if len(content) > SIZE_LIMIT:
        raise error(f"The file is longer than {SIZE_LIMIT} bytes.", got=path, fix="Give a recipe or target in YAML.")
    try:
        return content.decode()
    except UnicodeDecodeError as reason:
        raise error("The file is not UTF-8 text.", got=path, fix="Give a recipe or target in YAML.") from reason


def parse_yaml(text: str, *, where: str, error: type[EdgeOptError]) -> Any:
    """Parse YAML 1.2's core schema: no tags, no anchors or aliases, no key twice.

    Args:
        text: The document.
        where: What the document is, for the error's text.
        error: The class of the error to raise.

    Returns:
        None, booleans, finite numbers, strings, lists, and dicts with string keys.

    Raises:
        error: The text is not such a document; the line is named.
    """
    try:
        value = yaml.load(text, Loader=StrictLoader)  # noqa: S506 (StrictLoader is a SafeLoader with less)
    except yaml.MarkedYAMLError as reason:
        mark = reason.problem_mark or reason.context_mark
        line = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        said = ", ".join(part for part in (reason.context, reason.problem) if part)
        raise error(f"{where} is not the YAML that edgeopt reads: {said}{line}.") from reason
    except (yaml.YAMLError, ValueError) as reason:
        raise error(f"{where} is not the YAML that edgeopt reads: {reason}.") from reason
    except RecursionError as reason:
        raise error(f"{where} is nested too deeply.", fix="Give a plain document.") from reason
    return value


def write_yaml(value: Any) -> str:
    """Write what ``parse_yaml`` reads back to the same value; keys keep their order."""
    return str(yaml.dump(value, Dumper=StrictDumper, sort_keys=False, allow_unicode=True, width=110))


def validate(model: type[M], value: Any, *, where: str, error: type[EdgeOptError]) -> M:
    """Make a ``model`` of a parsed document, strictly: ``"2"`` and ``true`` are no integers.

    Raises:
        error: The document does not fit; one line per problem, each with the full key, what was received and the
            nearest valid key or the choices.
    """
    if not isinstance(value, dict):
        keys = ", ".join(model.model_fields)
        raise error(f"{where} is not a mapping.", got=_shown(value), fix=f"Its keys are {keys}.")
    try:
        # Through JSON, because strict JSON takes a list for a tuple, and strict Python does not.
        return model.model_validate_json(json.dumps(value, allow_nan=False), strict=True)
    except ValidationError as reason:
        raise error(f"{where} is not valid: " + "\n  ".join(_problems(model, reason))) from reason


def _problems(model: type[BaseModel], reason: ValidationError) -> list[str]:
    """One sentence per problem, misspelled keys first; what only follows from another problem is left out."""
    errors = reason.errors(include_url=False)
    unknown, meant = [], set()
    for problem in errors:
        if problem["type"] == "extra_forbidden":
            *parents, name = problem["loc"]
            valid = nearest_first(str(name), _keys_at(model, tuple(parents)))
            meant.add((*parents, valid[0]))
            key = _dotted(problem["loc"])
            unknown.append(f"unknown key {key}; nearest valid key: {valid[0]} (all: {', '.join(valid)}).")
    rest = []
    for problem in errors:
        place = problem["loc"]
        causes = (other["loc"] for other in errors if len(other["loc"]) > len(place))
        follows = problem["type"] == "too_short" and any(cause[: len(place)] == place for cause in causes)
        if problem["type"] != "extra_forbidden" and place not in meant and not follows:
            rest.append(_sentence(_dotted(place), dict(problem)))
    return unknown + rest


def _sentence(key: str, problem: dict[str, Any]) -> str:
    kind, got = problem["type"], _shown(problem["input"])
    if kind == "missing":
        return f"{key} is missing."
    if kind == "literal_error":
        return f"{key} is {got}; choose {problem['ctx']['expected']}."
    if kind in {"union_tag_invalid", "union_tag_not_found"}:
        names = problem.get("ctx", {}).get("expected_tags")
        choices = f"one of {names}" if names else "a mapping with one key, its name,"
        return f"{key} is {got}; it must be {choices} with its options below it."
    if kind == "value_error":
        return (f"{key}: " if key else "") + f"{problem['ctx']['error']}."
    return f"{key} is {got}: {problem['msg'][:1].lower()}{problem['msg'][1:]}."


def _dotted(location: tuple[int | str, ...]) -> str:
    """``("steps", 0, "quantize", "observer")`` → ``steps.quantize.observer``, as an override writes it."""
    parts: list[str] = []
    for place, part in enumerate(location):
        following = location[place + 1] if place + 1 < len(location) else None
        if isinstance(part, str):
            parts.append(part)
        elif not isinstance(following, str) or location[0] != "steps":
            parts[-1] += f"[{part}]"
    return ".".join(parts)


def _keys_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The keys that a mapping at ``location`` may have."""
    here: dict[str | None, type[BaseModel]] = {None: model}
    in_mapping = False
    for part in location:
        if in_mapping:  # a name of the user's own
            in_mapping = False
        elif part in here:  # the tag of a union's member
            here = {None: here[str(part)]}
        elif isinstance(part, str):
            field = next(m.model_fields[part] for m in here.values() if part in m.model_fields)
            here = dict(_models_in(field.annotation, None)) | dict(_models_in_metadata(field.metadata))
            in_mapping = get_origin(field.annotation) is dict
    return sorted({name for member in here.values() for name in member.model_fields})


def _models_in(annotation: Any, tag: str | None) -> Iterator[tuple[str | None, type[BaseModel]]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield tag, annotation
    for argument in (tags := get_args(annotation)):
        named = next((t.tag for t in tags if isinstance(t, Tag)), tag)
        yield from _models_in(argument, named)


def _models_in_metadata(metadata: list[Any]) -> Iterator[tuple[str | None, type[BaseModel]]]:
    for item in metadata:
        yield from _models_in(item, None)


def _shown(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
