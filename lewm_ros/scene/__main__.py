"""``python -m lewm_ros.scene``."""

import sys

from lewm_ros.scene import main

sys.exit(main())
