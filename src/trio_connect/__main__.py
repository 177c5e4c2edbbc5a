"""Run the command: ``python -m trio_connect``."""

import sys

from trio_connect.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
