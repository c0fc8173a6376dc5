"""``python -m sotglp`` is the command line."""

from sotglp.cli import main

if __name__ == "__main__":
    main()
