"""Run by test_bag_crash: writes pictures and commands until it is killed.

usage: python -m test.data.crashing_writer BAG FLUSH_S

Prints the number of the newest command that must be readable, whenever that changes: all that was
written before a flush that has returned.
"""

from __future__ import annotations

import itertools
import sys
import time

import numpy as np

from lewm_core.data.bags import BagWriter
from test.data.synthetic import image_message, stamped


def main() -> None:
    """Write for ever."""
    writer = BagWriter(sys.argv[1], flush_s=float(sys.argv[2]))
    writer.add_topic("/camera", "sensor_msgs/msg/Image")
    writer.add_topic("/command", "geometry_msgs/msg/TwistStamped")
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    for number in itertools.count():
        stamp_ns = number * 10_000_000
        if number % 3 == 0:
            writer.write("/camera", stamp_ns, image_message(noise, stamp_ns))
        command = stamped("geometry_msgs/msg/TwistStamped", stamp_ns)
        command.twist.linear.x = float(number)
        writer.write("/command", stamp_ns, command)
        if number % 50 == 49:
            writer.flush()
            print(number, flush=True)
        time.sleep(0.001)


if __name__ == "__main__":
    main()
