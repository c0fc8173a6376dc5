"""Entry point of ``sotglp`` and ``python -m sotglp``."""

import sys


def main() -> None:
    """Run the command line, which handles signals as soon as it is imported."""
    try:
        from sotglp.cli import main as run
    except KeyboardInterrupt:
        sys.stderr.write("sotglp: interrupted\n")
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
