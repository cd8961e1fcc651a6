"""Several nodes in one process: ``python -m lewm_ros.composed planner scene --ros-args ...``.

One process less to start and to watch, on a small computer. Each node has an executor of its own,
so none waits for another's callbacks; but they share Python's interpreter lock and their fate: what
kills one kills all. A planner beside a robot is safer in a process of its own.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from lewm_core.errors import ConfigError
from lewm_ros.runtime import run_nodes

#: Node: module and class. In this order they are closed: the planner publishes hold while the
#: others still listen, the recorder writes what they published.
NODES = {
    "planner": ("lewm_ros.planner.node", "PlannerNode"),
    "expert": ("lewm_ros.expert", "ExpertNode"),
    "scene": ("lewm_ros.scene.node", "SceneNode"),
    "record_dataset": ("lewm_ros.record_dataset.node", "RecordDatasetNode"),
}

_HELP = f"""Several nodes in one process: {', '.join(NODES)}.

A parameter belongs to one node: -p NODE:NAME:=VALUE. use_sim_time goes to all: -p
use_sim_time:=true. The process ends when one node ends.

example: python -m lewm_ros.composed planner scene --ros-args -p use_sim_time:=true
  -p planner:checkpoint:=push_t-nano -p planner:autostart:=true -p scene:seed:=3"""


def _check_parameters(arguments: Sequence[str], names: Sequence[str]) -> None:
    """Refuse parameters for a node that is not there: ROS would ignore them without a word.

    Raises:
        ConfigError: The node is not one of these, or in a namespace, where NODE: is another one.
    """
    given = list(zip(arguments, arguments[1:], strict=False))
    rules = [rule.split(":=")[0] for option, rule in given if option in ("-r", "--remap")]
    for option, rule in given:
        name, prefixed, parameter = rule.split(":=")[0].partition(":")
        if option not in ("-p", "--param") or not prefixed:
            continue
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
            raise ConfigError(f"{option} {rule}: node {name!r} is not started: {hint}")
        if "__ns" in rules or f"{name}:__ns" in rules:
            raise ConfigError(
                f"{option} {rule}: {name}: means a node without a namespace; give --params-file "
                f"FILE with /NAMESPACE/{name}: {{ros__parameters: {{{parameter}: VALUE}}}}"
            )


def _chosen(names: Sequence[str]) -> list[str]:
    """Return the nodes asked for, in the order in which they are closed.

    Raises:
        ConfigError: None, one twice, or one that is not known.
    """
    if not names:
        raise ConfigError(f"which nodes? Give some of {', '.join(NODES)}")
    for name in names:
        if name not in NODES:
            near = difflib.get_close_matches(name, NODES, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(NODES)}"
            raise ConfigError(f"node {name!r} is not known: {hint}")
        if names.count(name) > 1:
            raise ConfigError(f"node {name} is named twice: it can run once in a process")
    return [name for name in NODES if name in names]


def _factory(name: str) -> Callable[[], Any]:
    module, kind = NODES[name]
    return getattr(importlib.import_module(module), kind)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the nodes; returns the exit status."""
    arguments = list(sys.argv if argv is None else argv)
    end = arguments.index("--ros-args") if "--ros-args" in arguments else len(arguments)
    own = arguments[1:end]
    if {"-h", "--help"} & set(own):
        print(_HELP)
        return 0
    try:
        names = _chosen([argument for argument in own if not argument.startswith("-")])
        _check_parameters(arguments[end:], names)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    flags = [argument for argument in own if argument.startswith("-")]
    return run_nodes(
        [_factory(name) for name in names], [arguments[0], *flags, *arguments[end:]],
        help_text=_HELP,
    )


if __name__ == "__main__":
    sys.exit(main())
