"""Mutations of bytes and of trees of values, all drawn from one generator of random numbers."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

import yaml

#: Stands for brackets 10,000 deep, which no dumper writes.
_DEEP = "@@deep@@"
_DEPTH = 10_000

#: What a value is replaced by.
_EXTREMES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**30, 1e308, -1e308, 1e-300,
    float("nan"), float("inf"), -float("inf"), "", "x", "x" * 100_000, "../" * 20 + "etc/passwd",
    "a\nb\x1b[31m\x00c", "\u202eabc", [], {}, [[]], [None] * 1000, {"a": {"b": {}}}, _DEEP,
    "2001-99-99", "1:2:3", "!!python/object/apply:os.system [true]", "${jndi}", "9" * 5000,
)  # fmt: skip

#: Whole numbers that a length field is set to.
_LENGTHS = (0, 1, 7, 2**7, 2**8 - 1, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**40,
            2**62, 2**63 - 1, 2**63, 2**64 - 1)  # fmt: skip


def mutate_bytes(rng: random.Random, data: bytes, other: bytes = b"") -> bytes:
    """Return ``data`` with one to four mutations.

    Args:
        rng: Decides all.
        data: What is mutated.
        other: Bytes of the same kind, parts of which are spliced in.
    """
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        rng.choice(_BYTE_MUTATIONS)(rng, changed, other or data)
    return bytes(changed)


def _flip_bits(rng: random.Random, data: bytearray, _: bytes) -> None:
    for _ in range(rng.choice((1, 1, 3, 16, 64))):
        if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _truncate(rng: random.Random, data: bytearray, _: bytes) -> None:
    del data[rng.randrange(len(data) + 1) :]


def _delete(rng: random.Random, data: bytearray, _: bytes) -> None:
    first = rng.randrange(len(data) + 1)
    del data[first : first + rng.choice((1, 4, 64, 1024))]


def _splice(rng: random.Random, data: bytearray, other: bytes) -> None:
    first = rng.randrange(len(other) + 1)
    piece = other[first : first + rng.choice((4, 64, 1024))]
    place = rng.randrange(len(data) + 1)
    data[place : place + rng.choice((0, len(piece)))] = piece


def _set_length(rng: random.Random, data: bytearray, _: bytes) -> None:
    size = rng.choice((1, 2, 4, 8))
    if len(data) >= size:
        place = rng.randrange(len(data) - size + 1)
        value = rng.choice(_LENGTHS) % 256**size
        data[place : place + size] = value.to_bytes(size, rng.choice(("little", "big")))


def _set_early_length(rng: random.Random, data: bytearray, _: bytes) -> None:
    """As `_set_length`, near the beginning or the end, where headers and footers are."""
    near = min(len(data), 200)
    if near >= 8:
        place = rng.randrange(near - 7)
        place = rng.choice((place, len(data) - 8 - place))
        data[place : place + 8] = rng.choice(_LENGTHS).to_bytes(8, "little")


_BYTE_MUTATIONS: tuple[Callable[[random.Random, bytearray, bytes], None], ...] = (
    _flip_bits, _flip_bits, _truncate, _delete, _splice, _set_length, _set_length,
    _set_early_length,
)  # fmt: skip


def mutate_tree(rng: random.Random, tree: Any) -> Any:
    """Return a copy of nested mappings and lists with one to three values or keys changed."""
    changed = json.loads(json.dumps(tree))
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = list(_places(changed))
        if not places:
            break
        owner, key = rng.choice(places)
        action = rng.choice(("replace", "replace", "replace", "drop", "rename", "number", "swap"))
        if action == "drop":
            del owner[key]
        elif action == "rename" and isinstance(owner, dict):
            owner[rng.choice((str(key) + "x", "", "__class__", "../" + str(key)))] = owner.pop(key)
        elif action == "number" and isinstance(owner[key], int | float):
            owner[key] = owner[key] * rng.choice((-1, 0, 1000, 10**6, 10**9, 10**12, 0.5))
        elif action == "swap":
            other, place = rng.choice(places)
            if _holds(other, place):
                owner[key] = json.loads(json.dumps(other[place]))
        else:
            # Copied: later mutations may change what is put in.
            owner[key] = copy.deepcopy(rng.choice(_EXTREMES))
    return changed


def _holds(owner: Any, key: Any) -> bool:
    return key in owner if isinstance(owner, dict) else key < len(owner)


def _places(tree: Any) -> Any:
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in list(pairs):
        yield tree, key
        if isinstance(value, dict | list):
            yield from _places(value)


def yaml_text(rng: random.Random, tree: Any) -> str:
    """Return a tree as YAML; now and then with a line doubled, lost, or indented otherwise."""
    text = yaml.dump(tree, sort_keys=False, Dumper=yaml.CSafeDumper)
    if rng.random() < 0.15:
        lines = text.splitlines()
        place = rng.randrange(len(lines))
        action = rng.choice(("double", "drop", "indent", "tab", "anchor"))
        if action == "double":
            lines.insert(place, lines[place])
        elif action == "drop":
            del lines[place]
        else:
            lines[place] = {"indent": "  ", "tab": "\t", "anchor": "&a *a "}[action] + lines[place]
        text = "\n".join(lines)
    return text.replace(_DEEP, "[" * _DEPTH + "]" * _DEPTH)


def json_text(rng: random.Random, tree: Any) -> str:
    """Return a tree as JSON; now and then with a key doubled."""
    text = json.dumps(tree)
    if rng.random() < 0.1 and isinstance(tree, dict) and tree:
        key = rng.choice(list(tree))
        text = "{" + f"{json.dumps(key)}: {json.dumps(tree[key])}, " + text[1:]
    return text.replace(f'"{_DEEP}"', "[" * _DEPTH + "]" * _DEPTH)
