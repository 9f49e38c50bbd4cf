"""``python -m scratchgen.cli``: the same as the command ``scratchgen``."""

from .app import main

if __name__ == "__main__":
    main()
