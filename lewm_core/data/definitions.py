"""Message definitions that a bag brings along, checked before rosbags makes code of them.

rosbags writes a Python function for every type and runs it. Its grammars let nothing through that
is not a name or a number; that is checked once more here, together with what the grammars do not
bound: the size of arrays, for every element of which it writes lines, and arithmetic.
"""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from typing import Any

from rosbags.interfaces import Nodetype
from rosbags.typesys import TypesysError, get_types_from_idl, get_types_from_msg
from rosbags.typesys.store import Typestore

from lewm_core.data.messages import typestore
from lewm_core.errors import one_line

_LOGGER = logging.getLogger(__name__)

#: Characters of the definition of one type with those inside it.
LARGEST_DEFINITION = 256 * 1024
#: Fields of a type, and elements of an array of fixed length of texts or messages.
MOST_FIELDS, MOST_ELEMENTS = 2000, 1024
#: Elements of an array of fixed length of numbers.
_MOST_NUMBERS = 2**24

_TYPE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*(/[A-Za-z][A-Za-z0-9_]*)+")
_FIELD_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
#: Comments and texts of IDL; what is left has arithmetic in it if it has one of these signs.
_IDL_PROSE = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\])*"', re.DOTALL)
_IDL_ARITHMETIC = re.compile(r"<<|>>|[*%^|&~+/]")

#: What rosbags raises for definitions that it can make nothing of.
_ERRORS = (
    TypesysError, ValueError, LookupError, TypeError, AttributeError, AssertionError,
    ArithmeticError, RecursionError, SyntaxError, NameError,
)  # fmt: skip

Definition = tuple[str, str, str]


@lru_cache(maxsize=16)
def store_for(definitions: tuple[Definition, ...]) -> Typestore:
    """Return a store that knows what a bag defines; the bag's definitions win over Jazzy's.

    Args:
        definitions: Type name, ``msg`` or ``idl``, and text. One that cannot be used is left aside
            with a warning.
    """
    parsed: dict[str, Any] = {}
    for definition in definitions:
        try:
            parsed.update(_parse(*definition))
        except _ERRORS as error:
            _LOGGER.warning(
                "the bag's definition of %s cannot be used: %s",
                one_line(definition[0])[:200], one_line(error)[:200],
            )  # fmt: skip
    shared = typestore()
    if all(_same_fields(shared, name, fields) for name, (_, fields) in parsed.items()):
        return shared
    store = Typestore()
    try:
        store.register(parsed)
    except _ERRORS as error:
        _LOGGER.warning("the bag's definitions cannot be used: %s", one_line(error)[:200])
        return shared
    for name, definition in shared.fielddefs.items():
        if name not in store.fielddefs:
            store.fielddefs[name] = definition
            store.types[name] = shared.types[name]
    return store


def same_as_jazzy(store: Typestore, name: str) -> bool:
    """Say whether a type, and those inside it, are in ``store`` as ROS 2 Jazzy has them."""
    fields = store.fielddefs[name][1]
    if not _same_fields(typestore(), name, fields):
        return False
    return all(
        same_as_jazzy(store, detail) for _, (kind, detail) in fields if kind == Nodetype.NAME
    )


def _parse(type_name: str, kind: str, text: str) -> dict[str, Any]:
    """Parse one definition.

    Raises:
        TypesysError, ValueError, ...: See `_ERRORS`.
    """
    if len(text) > LARGEST_DEFINITION:
        raise ValueError(f"it has {len(text)} characters, {LARGEST_DEFINITION} are allowed")
    if kind == "idl":
        if _IDL_ARITHMETIC.search(_IDL_PROSE.sub("", text)):
            raise ValueError("it has arithmetic in it")
        types = get_types_from_idl(text)
    else:
        types = get_types_from_msg(text, type_name)
    for name, (constants, fields) in types.items():
        _check_name(_TYPE_NAME, name)
        if len(fields) + len(constants) > MOST_FIELDS:
            raise ValueError(f"{name} has more than {MOST_FIELDS} fields and constants")
        for constant in constants:
            _check_name(_FIELD_NAME, constant[0])
        for field, description in fields:
            _check_name(_FIELD_NAME, field)
            _check_field(f"{name}.{field}", *description)
    return types


def _check_field(name: str, kind: int, detail: Any) -> None:
    if kind in (Nodetype.ARRAY, Nodetype.SEQUENCE):
        element, length = detail
        numbers = element[0] == Nodetype.BASE and element[1][0] != "string"
        most = _MOST_NUMBERS if numbers else MOST_ELEMENTS
        # An array of none takes no bytes of a message: one of a million of them costs nothing.
        if kind == Nodetype.ARRAY and not 1 <= length <= most:
            raise ValueError(f"{name} has {length} elements, 1 to {most} are allowed")
        kind, detail = element
    if kind == Nodetype.NAME:
        _check_name(_TYPE_NAME, detail)


def _check_name(pattern: re.Pattern[str], name: str) -> None:
    if len(name) > 255 or pattern.fullmatch(name) is None:
        raise ValueError(f"{name[:100]!r} is not a name")


def _same_fields(store: Typestore, name: str, fields: Any) -> bool:
    known = store.fielddefs.get(name)
    return known is not None and list(known[1]) == list(fields)
