"""ROS 2 nodes of LeWorldModel: thin adapters between topics and `lewm_core`.

Importing this package imports no ROS: ``import lewm_ros`` works anywhere, and a node started
where ROS is missing says so in one line (`lewm_ros.runtime.require_ros`).
"""

from pkgutil import extend_path

# The generated interfaces (lewm_ros.msg, .srv, .action) are installed elsewhere than this folder
# when the nodes run from the source tree; without this line the source folder would hide them.
__path__ = extend_path(__path__, __name__)
