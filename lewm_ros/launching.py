"""What the launch files share: their arguments as tables, and the nodes made from them.

An argument left empty is not passed on: then the parameter file decides, and where that is silent
the node's own default. So an argument typed goes before the file, and the file before a default;
`lewm_ros.node_settings` sees to it, in the same way for nodes in processes of their own and in one.
Needs `launch` and `launch_ros`, which come with a ROS installation and not from PyPI.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import yaml
from launch import LaunchContext
from launch.actions import DeclareLaunchArgument, Shutdown
from launch.logging import launch_config
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.utilities import make_namespace_absolute, prefix_namespace

from lewm_core.errors import ConfigError
from lewm_core.paths import shared_folder
from lewm_ros.node_settings import NodeSettings, decided_entries, default_entries
from lewm_ros.node_settings import full_name as absolute_name

#: Value of the argument ``scene`` for a real robot.
NO_SCENE = "none"
#: Value of an argument that is decided by others.
AUTO = "auto"

#: Seconds for a node to end after SIGINT, and again after SIGTERM.
_PATIENCE_S = 15

_TRUE, _FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")


@dataclass(frozen=True)
class Argument:
    """One launch argument.

    Attributes:
        name: As typed: ``name:=value``.
        description: With the unit.
        kind: Type of the node parameter it becomes.
        default: Shown by ``--show-args``; empty: left to the parameter file and the node.
        parameter: Of the node, where its name is another; empty: the same.
        choices: Values allowed.
    """

    name: str
    description: str
    kind: type = str
    default: str = ""
    parameter: str = ""
    choices: tuple[str, ...] = ()


COMMON = (
    Argument("namespace", "Of the nodes; topics of the contract that begin with / are not moved."),
    Argument("params_file", "YAML file with ROS parameters; arguments typed go before it."),
    Argument(
        "log_level", "Of the nodes.", default="info",
        choices=("debug", "info", "warn", "error", "fatal"),
    ),
    Argument(
        "dds_profile",
        "Fast DDS profile of config/fastdds that the nodes apply (LEWM_DDS_PROFILE); none: Fast "
        "DDS's own defaults. A FASTDDS_DEFAULT_PROFILES_FILE of yours goes before it.",
        default="host",
    ),
    Argument(
        "composed", "All nodes in one process: smaller, but they share an interpreter and a fate.",
        bool, "false",
    ),
)

USE_SIM_TIME = Argument(
    "use_sim_time", "Follow /clock; auto: if a simulated scene runs.", default="auto",
    choices=("auto", "true", "false"),
)

CONTRACT = Argument(
    "contract", "Contract: a YAML file, or a name in config/robots; empty: that of the scene or "
    "checkpoint."
)

SCENE = (
    Argument("camera_rate", "Pictures per second of scene time, Hz; 0: the control rate.", float),
    Argument("image_width", "Of the pictures, px; 0: the contract's.", int),
    Argument("image_height", "Of the pictures, px; 0: the contract's.", int),
    Argument(
        "real_time_factor", "Simulated seconds per second; 0: as fast as possible.", float
    ),
    Argument("lock_step", "Scene time stands still until the command for it is there.", bool),
    Argument("publish_clock", "Publish /clock; false: stamp with the system's time.", bool),
    Argument("scene_seed", "Of the first start; -1: drawn.", int, parameter="seed"),
)

EXPERT = (
    Argument("episodes", "Number of episodes the scripted expert drives.", int),
    Argument("steps", "Control steps of each episode.", int),
    Argument("expert_seed", "Of the first episode; the next ones count up.", int,
             parameter="seed"),
)

RECORDER = (
    Argument("out", "Folder of the dataset.", default="data/recording"),
    Argument("extra_topics", "Topics recorded besides the contract's: [/joint_states, /tf].",
             list),
    Argument("record_at_start", "Begin an episode at once.", bool),
    Argument("follow_events", "Begin and end episodes by the events on /episode.", bool),
    Argument("episode_prefix", "Of the names of episodes that have none of their own."),
    Argument("storage", "Of the bags.", choices=("mcap", "sqlite3")),
    Argument("queue_mib", "MiB that may wait for the disk.", float),
    Argument("settle_time", "s of real time for the last messages of an ended episode.", float),
    Argument("pre_trigger", "s before start_episode that are part of the episode.", float),
    Argument("pre_trigger_mib", "MiB that pre_trigger may keep in memory.", float),
    Argument("minimum_free_gib", "GiB of disk that stay free.", float),
    Argument("quota_gib", "GiB recorded in all; 0: no limit.", float),
)


def planner_arguments() -> tuple[Argument, ...]:
    """Return one argument for each parameter of the planner, with the node's own words."""
    from lewm_ros.planner.parameters import DECLARATIONS

    defaults = {"checkpoint": AUTO, "goal_file": AUTO, "autostart": "true"}
    extra = {
        "checkpoint": " auto: the shipped one of the scene.",
        "goal_file": " auto: the shipped picture, if the shipped scene starts from its own seed."
    }
    return tuple(
        Argument(
            row.name,
            f"{row.description}{extra.get(row.name, '')} (the node's own: {row.default!r})",
            type(row.default),
            defaults.get(row.name, ""),
        )
        for row in DECLARATIONS
        # The same argument of the scene and of the planner.
        if row.name not in {"contract", "lock_step"}
    )


def declare(*arguments: Argument) -> list[DeclareLaunchArgument]:
    """Return the declarations for a launch description, in this order."""
    return [
        DeclareLaunchArgument(
            argument.name,
            default_value=argument.default,
            description=argument.description,
            choices=[*argument.choices, *([] if argument.default else [""])]
            if argument.choices
            else None,
        )
        for argument in arguments
    ]


def value(context: LaunchContext, name: str) -> str:
    """Return what was typed for an argument, or its default, without blanks around it."""
    return LaunchConfiguration(name).perform(context).strip()


def flag(context: LaunchContext, name: str) -> bool:
    """Return an argument that is true or false.

    Raises:
        ConfigError: It is neither.
    """
    return _convert(name, value(context, name), bool)


def parameters(context: LaunchContext, arguments: Iterable[Argument]) -> dict[str, Any]:
    """Return the node parameters for those arguments that are not empty.

    Raises:
        ConfigError: A value does not have the parameter's type.
    """
    typed = {}
    for argument in arguments:
        text = value(context, argument.name)
        if text:
            converted = _convert(argument.name, text, argument.kind)
            typed[argument.parameter or argument.name] = converted
    return typed


def use_sim_time(context: LaunchContext) -> bool:
    """Return whether the nodes follow /clock."""
    given = value(context, "use_sim_time")
    return has_scene(context) if given == "auto" else given == "true"


def has_scene(context: LaunchContext) -> bool:
    """Return whether a simulated scene is to run."""
    return value(context, "scene") not in ("", NO_SCENE)


def full_name(context: LaunchContext, name: str) -> str:
    """Return a node's name with its namespace, without the leading slash."""
    return absolute_name(name, _namespace(context)).removeprefix("/")


def scene_checkpoint(context: LaunchContext) -> str:
    """Return the name of the checkpoint that ships for the scene, ``push_t-nano`` without one."""
    scene = value(context, "scene")
    return f"{scene}-nano" if has_scene(context) else "push_t-nano"


def example_goal(context: LaunchContext) -> tuple[Path, int] | None:
    """Return the shipped goal picture of the scene and the seed of its start, if there is one."""
    folder = shared_folder() / "config" / "goals"
    facts = folder / f"{value(context, 'scene')}.yaml"
    if not has_scene(context) or not facts.is_file():
        return None
    seed = yaml.safe_load(facts.read_text(encoding="utf-8"))["scene_seed"]
    return facts.with_suffix(".png"), int(seed)


def processes(context: LaunchContext, nodes: Sequence[NodeSettings]) -> list[Node]:
    """Return the processes of a launch; when one ends, all of the launch ends.

    Args:
        context: With the arguments of `COMMON` declared.
        nodes: Each gets a process of its own, unless ``composed`` was typed.

    Raises:
        ConfigError: The parameter file cannot be used.
    """
    # One node alone is the same in either way.
    if flag(context, "composed") and len(nodes) > 1:
        return [_process(context, "composed", nodes)]
    return [_process(context, node.executable, [node]) for node in nodes]


def scene_node(context: LaunchContext, defaults: Mapping[str, Any] | None = None) -> NodeSettings:
    """Return the node of the simulated scene; ``scene`` and `SCENE` must be declared."""
    explicit = {"scene": value(context, "scene"), **parameters(context, SCENE)}
    if value(context, "contract"):
        explicit["contract"] = value(context, "contract")
    return NodeSettings("scene", explicit, dict(defaults or {}))


def _process(context: LaunchContext, executable: str, nodes: Sequence[NodeSettings]) -> Node:
    namespace = _namespace(context)
    ros_arguments = ["--log-level", value(context, "log_level")]
    defaults = default_entries(nodes, namespace)
    if defaults:
        ros_arguments += ["--params-file", _written(defaults, f"{executable}_defaults_")]
    params_file = value(context, "params_file")
    decided = decided_entries(nodes, namespace, params_file)
    if decided and params_file:
        # rcl names this file and a line of it if a value cannot be read.
        decided = f"# Arguments typed, and what they leave of {params_file!r}\n{decided}"
    composed = len(nodes) > 1
    names = [node.executable for node in nodes]
    return Node(
        package="lewm_ros",
        executable=executable,
        # In a common process each node has its own name; one given here would be that of all.
        name=None if composed else executable,
        namespace=namespace,
        arguments=names if composed else None,
        parameters=[_written(decided, f"{executable}_")] if decided else None,
        additional_env={"LEWM_DDS_PROFILE": value(context, "dds_profile")},
        ros_arguments=ros_arguments,
        output="screen",
        emulate_tty=True,
        # A node publishes its last hold and finishes its file first, also on a slow machine.
        sigterm_timeout=str(_PATIENCE_S),
        sigkill_timeout=str(_PATIENCE_S),
        on_exit=Shutdown(reason=f"{executable} has ended"),
    )


def _namespace(context: LaunchContext) -> str:
    """Return the nodes' namespace, absolute, below that of a launch file that includes ours."""
    outer = context.launch_configurations.get("ros_namespace")
    # None: neither is given.
    inner = prefix_namespace(outer, value(context, "namespace") or None)
    return make_namespace_absolute(inner) or "/"


def _written(text: str, prefix: str) -> str:
    """Write a parameter file beside the launch's log, where it can be looked at afterwards."""
    with NamedTemporaryFile(
        "w", encoding="utf-8", dir=launch_config.log_dir, prefix=prefix, suffix=".yaml",
        delete=False,
    ) as file:  # fmt: skip
        file.write(text)
    return file.name


def _convert(name: str, text: str, kind: type) -> Any:
    if kind is bool:
        lowered = text.lower()
        if lowered not in _TRUE + _FALSE:
            raise ConfigError(f"argument {name}:={text}: give true or false")
        return lowered in _TRUE
    if kind is list:
        entries: Sequence[str] = text.strip("[]").split(",")
        return [entry.strip().strip("'\"") for entry in entries if entry.strip()]
    try:
        return kind(text)
    except ValueError as error:
        raise ConfigError(f"argument {name}:={text}: give a number ({kind.__name__})") from error
