"""``python -m lewm_ros.record_dataset``."""

import sys

from lewm_ros.record_dataset import main

sys.exit(main())
