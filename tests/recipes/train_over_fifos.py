"""The table's line of the recipe, and the command line with it."""

import os

from hdnn_dist.cli import main
from hdnn_dist.exchange.connect import TRANSPORTS, Transport

TRANSPORTS["fifo"] = Transport("fifo", launched=lambda: "FIFO_RANK" in os.environ)

if __name__ == "__main__":
    main()
