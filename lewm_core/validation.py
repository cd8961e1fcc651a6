"""Turn what pydantic and YAML complain of into one line that names file, key and mend."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from lewm_core.errors import ConfigError
from lewm_core.reading import LARGEST_YAML, ReadingError, parse_yaml, read_bounded_text

ModelType = TypeVar("ModelType", bound=BaseModel)


def nearest(word: str, words: Iterable[str]) -> str | None:
    """Return the entry of ``words`` that ``word`` was most likely meant to be, if there is any."""
    candidates = list(words)
    found = difflib.get_close_matches(word, candidates, n=1, cutoff=0.5)
    if found:
        return found[0]
    contained = [entry for entry in candidates if word and (word in entry or entry in word)]
    return contained[0] if contained else None


def suggestion(word: str, words: Iterable[str]) -> str:
    """Return ``"did you mean 'x'?"``, or the list of what is allowed when nothing is near."""
    candidates = sorted(words)
    found = nearest(word, candidates)
    if found is not None:
        return f"did you mean {found!r}?"
    return "it can be " + ", ".join(candidates) if candidates else "nothing is allowed here"


def read_yaml_mapping(path: Path, error_type: type[ConfigError] = ConfigError) -> dict[str, Any]:
    """Read a YAML file that must hold a mapping.

    Raises:
        ConfigError: (or ``error_type``) The file is missing, is not YAML, or is not a mapping.
    """
    try:
        loaded = parse_yaml(read_bounded_text(path, LARGEST_YAML))
    except FileNotFoundError:
        raise error_type(f"{path} does not exist") from None
    except ReadingError as error:
        raise error_type(f"{path} {error}; mend the YAML there") from error
    if not isinstance(loaded, dict):
        raise error_type(f"{path}: must hold keys and values, but holds {_kind(loaded)}")
    for key in loaded:
        if not isinstance(key, str):
            raise error_type(f"{path}: key {key!r} is not a text; write it in quotes")
    return loaded


def validate(
    model: type[ModelType],
    values: dict[str, Any],
    source: str,
    error_type: type[ConfigError] = ConfigError,
) -> ModelType:
    """Validate ``values`` as ``model``.

    Args:
        model: A pydantic model with ``extra="forbid"``.
        values: As read from YAML or JSON.
        source: What the message names first: a file, or "contract of the checkpoint".
        error_type: Class of the error.

    Raises:
        ConfigError: (or ``error_type``) One line: source, key, what is wrong, the nearest valid
            key; further problems are counted.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise error_type(explain(error, model, source)) from error


def explain(error: ValidationError, model: type[BaseModel], source: str) -> str:
    """Return one line for the most telling of the problems in ``error``."""
    # A misspelt key is reported twice, as unknown and as missing: the unknown one says more.
    problems = sorted(
        _innermost(error.errors()), key=lambda problem: problem["type"] != "extra_forbidden"
    )
    first = problems[0]
    location, owner = _walk(first["loc"], model)
    text = f"{source}: {_describe(first, location, owner)}"
    keys = {_key_text(_walk(problem["loc"], model)[0]) for problem in problems}
    further = len(keys) - 1
    return text + (f" (and {further} more)" if further > 0 else "")


def _innermost(problems: list[Any]) -> list[Any]:
    """Drop what only follows from another: a list of one bad entry also counts as too short."""
    return [
        problem
        for problem in problems
        if not any(
            other["loc"][: len(problem["loc"])] == problem["loc"]
            and len(other["loc"]) > len(problem["loc"])
            for other in problems
        )
    ]


def _describe(problem: Any, location: list[int | str], owner: type[BaseModel] | None) -> str:
    key = _key_text(location)
    kind = problem["type"]
    if kind == "extra_forbidden":
        keys = owner.model_fields if owner is not None else {}
        return f"unknown key {key!r}; {suggestion(str(location[-1]), keys)}"
    if kind == "missing":
        return f"key {key!r} is missing; add it"
    message = problem["msg"].removeprefix("Value error, ")
    given = problem.get("input")
    if kind == "value_error" or isinstance(given, dict | list):
        return f"{key}: {message}" if key else message
    return f"{key}: {message}, got {given!r}"


def _key_text(location: Iterable[int | str]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _is_union_tag(part: int | str) -> bool:
    """Say whether pydantic put ``part`` there to name a member of a union, not a key."""
    return isinstance(part, str) and (
        "[" in part or part in {"float", "int", "str", "bool", "constrained-str"}
    )


def _walk(
    location: Iterable[int | str], model: type[BaseModel]
) -> tuple[list[int | str], type[BaseModel] | None]:
    """Follow a problem's location from ``model``.

    Returns:
        The location without what pydantic put into it to name a member of a union, and the model
        that owns its last key (None where that is no model).
    """
    kept: list[int | str] = []
    owner: type[BaseModel] | None = model
    candidates: list[type[BaseModel]] = [model]
    for part in location:
        if _is_union_tag(part):
            continue
        tagged = [candidate for candidate in candidates if part in _tags(candidate)]
        if len(candidates) > 1 and tagged:
            candidates = tagged
            continue
        kept.append(part)
        if isinstance(part, int):
            continue
        owner = candidates[0] if candidates else None
        field = owner.model_fields.get(part) if owner is not None else None
        candidates = list(_models_in(field.annotation)) if field is not None else []
    return kept, owner


def _tags(model: type[BaseModel]) -> set[str]:
    """Return the values by which a discriminated union may tell ``model`` from others."""
    return {
        value
        for field in model.model_fields.values()
        if typing.get_origin(field.annotation) is typing.Literal
        for value in typing.get_args(field.annotation)
    }


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the pydantic models inside an annotation such as ``list[Camera] | None``."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        if issubclass(annotation, BaseModel):
            yield annotation
        return
    for inner in typing.get_args(annotation):
        yield from _models_in(inner)


def _kind(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
