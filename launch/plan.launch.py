"""The planner, on a simulated scene or on a robot.

Without arguments: the shipped Push-T checkpoint drives the simulated scene to a shipped picture.
On a robot the planner waits for a goal on ``~/set_goal`` or ``~/reach_goal``.

example: ros2 launch lewm_ros plan.launch.py
example: ros2 launch lewm_ros plan.launch.py scene:=two_room
example: ros2 launch lewm_ros plan.launch.py scene:=none checkpoint:=runs/mine/checkpoint
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import OpaqueFunction

from lewm_ros import launching
from lewm_ros.launching import NO_SCENE, Argument
from lewm_ros.node_settings import NodeSettings

PLANNER = launching.planner_arguments()

ARGUMENTS = (
    *PLANNER,
    launching.CONTRACT,
    Argument("scene", f"Simulated scene; {NO_SCENE}: a robot.", default="push_t"),
    *launching.SCENE,
    launching.USE_SIM_TIME,
    *launching.COMMON,
)


def nodes(context: LaunchContext) -> list:
    """Return the processes for the arguments typed."""
    # Only one lock step: the scene waits for the planner, which withholds its command.
    lock_step = launching.parameters(
        context, [argument for argument in launching.SCENE if argument.name == "lock_step"]
    )
    defaults = {"use_sim_time": launching.use_sim_time(context)}
    explicit = {**launching.parameters(context, PLANNER), **lock_step}
    # What was not typed may come from the parameter file.
    for name in ("checkpoint", "autostart"):
        given = next(argument for argument in PLANNER if argument.name == name)
        if launching.value(context, name) == given.default:
            defaults[name] = explicit.pop(name)
    if defaults.get("checkpoint") == launching.AUTO:
        defaults["checkpoint"] = launching.scene_checkpoint(context)
    contract = launching.value(context, "contract")
    if contract:
        explicit["contract"] = contract

    scene_defaults = {}
    if explicit.get("goal_file") == launching.AUTO:
        del explicit["goal_file"]
        goal = launching.example_goal(context)
        if goal is not None and not launching.value(context, "scene_seed"):
            defaults["goal_file"], scene_defaults["seed"] = str(goal[0]), goal[1]

    settings = [NodeSettings("planner", explicit, defaults)]
    if launching.has_scene(context):
        settings.append(launching.scene_node(context, scene_defaults))
    return launching.processes(context, settings)


def generate_launch_description() -> LaunchDescription:
    """Called by ``ros2 launch``."""
    return LaunchDescription([*launching.declare(*ARGUMENTS), OpaqueFunction(function=nodes)])
