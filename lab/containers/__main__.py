"""Runs the lab's command line."""

import sys

from lab.containers.cli import main

sys.exit(main())
