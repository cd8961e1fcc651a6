"""A simulated scene as camera and robot, on request driven by its scripted expert.

example: ros2 launch lewm_ros scene.launch.py expert:=true
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import OpaqueFunction

from lewm_ros import launching
from lewm_ros.launching import Argument
from lewm_ros.node_settings import NodeSettings

ARGUMENTS = (
    Argument("scene", "Name of the scene.", default="push_t"),
    launching.CONTRACT,
    *launching.SCENE,
    Argument("expert", "Let the scripted expert drive; the launch ends with it.", bool, "false"),
    *launching.EXPERT,
    *launching.COMMON,
)


def nodes(context: LaunchContext) -> list:
    """Return the processes for the arguments typed."""
    settings = [launching.scene_node(context)]
    if launching.flag(context, "expert"):
        scene = launching.value(context, "scene")
        contract = launching.value(context, "contract") or scene
        explicit = {
            "scene": scene,
            "scene_node": launching.full_name(context, "scene"),
            **launching.parameters(context, launching.EXPERT),
        }
        defaults = {"contract": contract, "use_sim_time": True}
        settings.append(NodeSettings("expert", explicit, defaults))
    return launching.processes(context, settings)


def generate_launch_description() -> LaunchDescription:
    """Called by ``ros2 launch``."""
    return LaunchDescription([*launching.declare(*ARGUMENTS), OpaqueFunction(function=nodes)])
