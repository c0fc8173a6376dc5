"""Entry point of ``sotglp`` and ``python -m sotglp``."""

from sotglp.cli import main

if __name__ == "__main__":
    main()
