"""What a launch gives to its nodes: arguments typed, before the parameter file, before defaults.

ROS itself knows another order: of two entries that match a node, the one whose name stood first on
the command line loses, whichever file it is from. So the parameter file is read here, by rclpy's
rule for names and patterns, and each node gets one entry of its own with what holds for it: the
same, whether the nodes run in processes of their own or in one. Values are handed on as they were
written: what `on` or `1e3` means is decided by ROS.

Works without `launch`, so that it can be tested wherever rclpy is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lewm_core.errors import ConfigError
from lewm_core.reading import LARGEST_YAML, ReadingError, compose_yaml, read_bounded_text

_PARAMETERS = "ros__parameters"
#: The entry for every node.
_EVERY_NODE = "/**"


@dataclass(frozen=True)
class NodeSettings:
    """A node of this package and what was decided about its parameters.

    Attributes:
        executable: Which node; also its name.
        explicit: Parameters from arguments that were typed: before the parameter file.
        defaults: Parameters that the parameter file may overrule.
    """

    executable: str
    explicit: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)


def default_entries(nodes: Sequence[NodeSettings], namespace: str) -> str:
    """Return a parameter file with the nodes' defaults.

    It goes first on the command line; parameters for all nodes (``-p NAME:=VALUE``), which a launch
    file that includes ours may have set, come after it and overrule it.

    Args:
        nodes: Of one process.
        namespace: Absolute.
    """
    return _file({
        full_name(node.executable, namespace): _as_nodes(node.defaults)
        for node in nodes if node.defaults
    })  # fmt: skip


def decided_entries(
    nodes: Sequence[NodeSettings], namespace: str, params_file: str | Path = ""
) -> str:
    """Return a parameter file with what the user decided: the file's entries, then what was typed.

    It goes last on the command line. For a node the file's ``/**`` counts least, then other
    patterns, then its own name; among equals the later one decides.

    Args:
        nodes: Of one process.
        namespace: Absolute.
        params_file: The user's; empty: none.

    Raises:
        ConfigError: The file is missing, is not YAML, or is no parameter file.
    """
    entries = list(_entries(params_file)) if str(params_file) else []
    decided = {}
    for node in nodes:
        name = full_name(node.executable, namespace)
        matching = [entry for entry in entries if _matches(entry[0], name)]
        matching.sort(key=lambda entry: _precedence(entry[0]))
        values: dict[str, Any] = {}
        for _, parameters in matching:
            values.update(parameters)
        values.update(_as_nodes(node.explicit))
        if values:
            # Without the slash it is an entry of its own: ROS would put values of one that was
            # there before, the default's, into that one's place.
            decided[name.removeprefix("/")] = values
    return _file(decided)


def full_name(name: str, namespace: str) -> str:
    """Return a node's name with its namespace, with the leading slash."""
    return f"{namespace.rstrip('/')}/{name}"


def _entries(params_file: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name or pattern, with a leading slash, and parameters of each entry, in order."""
    path = Path(params_file).expanduser()
    try:
        root = compose_yaml(read_bounded_text(path, LARGEST_YAML))
    except FileNotFoundError:
        raise ConfigError(f"params_file {params_file}: no such file") from None
    except ReadingError as error:
        raise ConfigError(f"params_file {params_file}: {error}") from error
    if root is not None:
        yield from _entries_below(root, "", params_file)


def _entries_below(
    node: Any, name: str, params_file: str | Path
) -> Iterator[tuple[str, dict[str, Any]]]:
    where = f"params_file {params_file}: line {node.start_mark.line + 1}"
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(
            f"{where}: {name or 'the file'} has no {_PARAMETERS}; an entry is NODE: "
            f"{{{_PARAMETERS}: {{NAME: VALUE}}}}"
        )
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode) or not key.value:
            raise ConfigError(f"{where}: a key of {name or 'the file'} is not a name")
        if key.value == _PARAMETERS and name:
            if not isinstance(value, yaml.MappingNode):
                raise ConfigError(f"{where}: {_PARAMETERS} of {name} are not NAME: VALUE")
            yield "/" + name.lstrip("/"), dict(_flat(value, "", where))
        else:
            below = f"{name}/{key.value}" if name else key.value
            yield from _entries_below(value, below, params_file)


def _flat(node: yaml.MappingNode, group: str, where: str) -> Iterator[tuple[str, Any]]:
    """Yield the parameters of groups of parameters by their full names: ``group.name``."""
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise ConfigError(f"{where}: the name of a parameter is not a text")
        if isinstance(value, yaml.MappingNode):
            yield from _flat(value, f"{group}{key.value}.", where)
        else:
            yield f"{group}{key.value}", value


def _matches(pattern: str, name: str) -> bool:
    """Return whether an entry is for a node, by rclpy's rule: ``/*`` is one name, ``/**`` any."""
    expression = re.escape(pattern).replace(re.escape("/*"), r"(/\w+)").replace(r"\*", "*")
    return re.fullmatch(expression, name, re.ASCII) is not None


def _precedence(pattern: str) -> int:
    if pattern == _EVERY_NODE:
        return 0
    return 1 if "*" in pattern else 2


def _as_nodes(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _as_node(value) for name, value in values.items()}


def _as_node(value: Any) -> Any:
    if isinstance(value, str):
        # Quoted: 1e3 and on would be a number and a truth for ROS.
        return yaml.ScalarNode("tag:yaml.org,2002:str", value, style='"')
    if isinstance(value, (list, tuple)):
        nodes = [_as_node(item) for item in value]
        return yaml.SequenceNode("tag:yaml.org,2002:seq", nodes, flow_style=True)
    return yaml.SafeDumper(None).represent_data(value)


def _file(entries: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a parameter file; empty if there are no entries."""
    if not entries:
        return ""
    return yaml.serialize(
        _mapping({
            name: _mapping({_PARAMETERS: _mapping(values)}) for name, values in entries.items()
        }),
        Dumper=yaml.SafeDumper, width=2**30, allow_unicode=True,
    )  # fmt: skip


def _mapping(values: Mapping[str, Any]) -> Any:
    pairs = [
        (yaml.ScalarNode("tag:yaml.org,2002:str", name), _copy(node))
        for name, node in values.items()
    ]
    return yaml.MappingNode("tag:yaml.org,2002:map", pairs, flow_style=False)


def _copy(node: Any) -> Any:
    """Return another node; the same one twice is written as an alias, which ROS refuses."""
    if isinstance(node, yaml.SequenceNode):
        children = [_copy(child) for child in node.value]
        return yaml.SequenceNode(node.tag, children, flow_style=node.flow_style)
    if isinstance(node, yaml.ScalarNode):
        return yaml.ScalarNode(node.tag, node.value, style=node.style)
    return node
