"""Run seeds, or look for planted bugs. Nothing of the engine is imported before a bug is planted.

python -m tests.simulation 0-299            a range of seeds
python -m tests.simulation 17 --history     one seed, with its history
python -m tests.simulation --bug utc_month 0-99
python -m tests.simulation --bugs           every planted bug, and the table in the docs
"""

import sys

from tests.simulation.command import main

if __name__ == "__main__":
    sys.exit(main())
