"""``python -m hdnn_dist`` is the command line."""

from hdnn_dist.cli.commands import main

if __name__ == "__main__":
    main()
