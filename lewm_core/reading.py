"""Reading what a stranger may have written: bounded in size, depth and count.

YAML and JSON of a few kilobytes can ask for gigabytes: aliases of aliases, a million empty lists,
brackets a thousand deep. Here all of them are counted before anything is built. Limits:
docs/security.md.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import yaml

from lewm_core.errors import UserError

#: Bytes of a YAML file: contracts, presets and metadata.yaml have some kilobytes.
LARGEST_YAML = 4 * 2**20
#: Values in a YAML file, each alias counted as all that it stands for.
MOST_YAML_NODES = 100_000
#: Lists and mappings inside one another, in YAML.
DEEPEST_YAML = 64
#: Characters of a YAML text whose every character may be a value.
_SHORT_YAML = 64 * 1024
#: Bytes of a JSON file: a model.json with the names of half a million episodes.
LARGEST_JSON = 16 * 2**20
#: Pixels of a picture; more are refused before it is decoded: kilobytes can unpack to gigabytes. It
#: stands here because contracts know it, too, and a recorder of pictures loads no picture library.
LARGEST_PIXELS = 64_000_000
#: JSON numbers beyond it are damage: nothing here counts as far.
_LARGEST_INTEGER = 2**63

_Loader: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class ReadingError(Exception):
    """A text cannot be read; the message does not name the file, since only the caller knows it."""


def read_bounded_text(path: Path, largest: int) -> str:
    """Return the text of a file.

    Args:
        path: Of a regular file; reading a pipe or a device might never end.
        largest: Bytes.

    Raises:
        FileNotFoundError: There is no such file.
        ReadingError: It is not a file, is larger, cannot be read, or is not UTF-8.
    """
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise ReadingError("is not a file")
        if size > largest:
            raise ReadingError(f"has {size} bytes, {largest} are allowed")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise ReadingError(f"cannot be read: {error}") from error


def parse_yaml(text: str, *, quick: bool = False) -> Any:
    """Return what a YAML text holds: plain lists, mappings, numbers and texts.

    Args:
        text: YAML.
        quick: Do not look for doubled keys and depth in a short text without anchors: nothing in
            it can grow, and it is read in a fifth of the time.

    Raises:
        ReadingError: It is not YAML, names a key twice, has a tag that is not plain YAML, or is
            larger, deeper or longer than the limits above.
    """
    try:
        if quick and len(text) < _SHORT_YAML and "&" not in text:
            return yaml.load(text, Loader=_Loader)
        _check_events(text)
        loader = _Loader(text)
        try:
            node = _compose(loader)
            return None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise _yaml_error(error) from error
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        # What the constructors of numbers and dates make of texts that are none.
        raise ReadingError(f"a value cannot be understood: {error}") from error


def compose_yaml(text: str) -> Any:
    """Return the nodes of a YAML text (`yaml.Node`), or None: each value as it was written.

    For what is handed on to another reader, whose rules for plain values are not Python's.

    Args:
        text: YAML.

    Raises:
        ReadingError: As `parse_yaml`, but for the values, which are not looked at.
    """
    try:
        _check_events(text)
        loader = _Loader(text)
        try:
            return _compose(loader)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise _yaml_error(error) from error


def parse_json(text: str) -> Any:
    """Return what a JSON text holds.

    Raises:
        ReadingError: It is not JSON (nor are ``NaN`` and ``Infinity``), is nested too deep, names
            a key twice, or has a number beyond 2^63 or the range of a float.
    """
    try:
        return json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_no_constant,
            parse_int=_integer,
            parse_float=_finite,
        )
    except (ValueError, RecursionError) as error:
        raise ReadingError(str(error)) from error


def read_json_mapping(
    path: Path, error_type: type[UserError], mend: str, largest: int = LARGEST_JSON
) -> dict[str, Any]:
    """Read a JSON file that must hold an object.

    Args:
        path: The file.
        error_type: What is raised.
        mend: What to do, the end of every message.
        largest: Bytes.

    Raises:
        UserError: ``error_type``: missing, too large, not JSON, or no object.
    """
    try:
        loaded = parse_json(read_bounded_text(path, largest))
    except FileNotFoundError:
        raise error_type(f"{path} does not exist; {mend}") from None
    except ReadingError as error:
        raise error_type(f"{path}: not valid JSON ({error}); {mend}") from error
    if not isinstance(loaded, dict):
        raise error_type(f"{path}: expected an object, got {type(loaded).__name__}; {mend}")
    return loaded


def _compose(loader: Any) -> Any:
    """Return the root node, or None; aliases are counted, doubled keys refused."""
    node = loader.get_single_node()
    if node is not None:
        _check_node(node, {}, set())
    return node


def _yaml_error(error: yaml.YAMLError) -> ReadingError:
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}: " if mark is not None else ""
    return ReadingError(f"{where}{getattr(error, 'problem', None) or 'not YAML'}")


def _check_events(text: str) -> None:
    """Count values and depth as the text is parsed, before a node of it is made."""
    if len(text) > LARGEST_YAML:
        raise ReadingError(f"has {len(text)} characters, {LARGEST_YAML} are allowed")
    nodes = depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        nodes += isinstance(event, yaml.NodeEvent)
        if depth > DEEPEST_YAML:
            raise ReadingError(
                f"line {event.start_mark.line + 1}: nested more than {DEEPEST_YAML} deep"
            )
        if nodes > MOST_YAML_NODES:
            raise ReadingError(
                f"line {event.start_mark.line + 1}: more than {MOST_YAML_NODES} values"
            )


def _check_node(
    node: Any, known: dict[int, tuple[int, int]], above: set[int]
) -> tuple[int, int]:
    """Return how many values a node stands for and how deep they lie, aliases written out.

    Args:
        node: Of the composed document, in which an alias is its anchor's node.
        known: Of the nodes that have been counted, by identity.
        above: The nodes that this one lies in, by identity.
    """
    key = id(node)
    if key in above:
        raise ReadingError(f"line {node.start_mark.line + 1}: an alias lies in its own anchor")
    if key in known:
        return known[key]
    size, depth = 1, 0
    if isinstance(node, yaml.CollectionNode):
        above.add(key)
        if isinstance(node, yaml.MappingNode):
            _check_keys(node)
            children = [child for pair in node.value for child in pair]
        else:
            children = node.value
        for child in children:
            child_size, child_depth = _check_node(child, known, above)
            size, depth = size + child_size, max(depth, child_depth + 1)
        above.discard(key)
    if size > MOST_YAML_NODES or depth > DEEPEST_YAML:
        raise ReadingError(
            f"line {node.start_mark.line + 1}: aliases stand for more than {MOST_YAML_NODES} "
            f"values, or nest more than {DEEPEST_YAML} deep"
        )
    known[key] = size, depth
    return size, depth


def _check_keys(node: yaml.MappingNode) -> None:
    seen: set[str] = set()
    for name, _ in node.value:
        if isinstance(name, yaml.ScalarNode):
            if name.value in seen:
                raise ReadingError(
                    f"line {name.start_mark.line + 1}: key {name.value!r} is there twice"
                )
            seen.add(name.value)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        doubled = next(name for name in found if names.count(name) > 1)
        raise ValueError(f"key {doubled!r} is there twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _integer(text: str) -> int:
    value = int(text)
    if abs(value) > _LARGEST_INTEGER:
        raise ValueError(f"number {text[:20]}... is beyond 2^63")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"number {text[:20]} is beyond the range of a float")
    return value
