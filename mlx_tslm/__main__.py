"""`python -m mlx_tslm` is `mlx-tslm`."""

import sys

from mlx_tslm.cli import main

sys.exit(main())
