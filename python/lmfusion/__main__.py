"""`python -m lmfusion`."""

import sys

from lmfusion.cli import main

if __name__ == "__main__":
    sys.exit(main())
