"""Records the topics of a contract to bags, from a robot or from a simulated scene.

example: ros2 launch lewm_ros record.launch.py contract:=my_robot.yaml out:=data/mine
example: ros2 launch lewm_ros record.launch.py scene:=push_t out:=data/push_t episodes:=100
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import OpaqueFunction

from lewm_ros import launching
from lewm_ros.launching import NO_SCENE, Argument
from lewm_ros.node_settings import NodeSettings

ARGUMENTS = (
    launching.CONTRACT,
    *launching.RECORDER,
    Argument(
        "scene", "Simulated scene, driven by its scripted expert; none: a robot.", default=NO_SCENE
    ),
    *launching.EXPERT,
    *launching.SCENE,
    launching.USE_SIM_TIME,
    *launching.COMMON,
)


def nodes(context: LaunchContext) -> list:
    """Return the processes for the arguments typed."""
    with_scene = launching.has_scene(context)
    defaults = {"use_sim_time": launching.use_sim_time(context)}
    contract = launching.value(context, "contract")
    if with_scene:
        contract = contract or launching.value(context, "scene")
    explicit = launching.parameters(context, launching.RECORDER)
    if contract:
        explicit["contract"] = contract
    settings = [NodeSettings("record_dataset", explicit, defaults)]
    if with_scene:
        drive = {
            "scene": launching.value(context, "scene"),
            "contract": contract,
            "recorder": launching.full_name(context, "record_dataset"),
            "scene_node": launching.full_name(context, "scene"),
            **launching.parameters(context, launching.EXPERT),
        }
        settings.append(launching.scene_node(context))
        settings.append(
            NodeSettings("expert", drive, {"use_sim_time": defaults["use_sim_time"]})
        )
    return launching.processes(context, settings)


def generate_launch_description() -> LaunchDescription:
    """Called by ``ros2 launch``."""
    return LaunchDescription([*launching.declare(*ARGUMENTS), OpaqueFunction(function=nodes)])
