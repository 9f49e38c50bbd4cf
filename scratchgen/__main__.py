"""``python -m scratchgen``: the same as the command ``scratchgen``."""

from .cli import main

if __name__ == "__main__":
    main()
