"""``python -m lewm_ros.planner``."""

import sys

from lewm_ros.planner import main

sys.exit(main())
