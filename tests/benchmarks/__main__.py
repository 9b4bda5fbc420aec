import sys

from tests.benchmarks.command import main

sys.exit(main())
