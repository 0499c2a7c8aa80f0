"""The program `mlx-tslm`, and `python -m mlx_tslm`."""

import sys

from mlx_tslm.cli import main as run
from mlx_tslm.system.interrupt import raise_again


def main() -> int:
    """Run the command line, which says itself what a Ctrl-C has left."""
    raise_again()
    return run()


if __name__ == "__main__":
    sys.exit(main())
