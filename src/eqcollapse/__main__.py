"""`python -m eqcollapse`: the command line, which cli/ holds."""

import sys

from eqcollapse.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
