"""``python -m lewm_ros.doctor``."""

import sys

from lewm_ros.doctor import main

sys.exit(main())
