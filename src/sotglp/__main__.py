"""``python -m sotglp``, and ``sotglp``: the command line, or the part of it that an exported model needs."""

from importlib.util import find_spec


def main() -> None:
    """Run the command line; without the full installation, ``sotglp predict`` with exported models alone."""
    if find_spec("typer") is None:
        from sotglp.runtime.command import main as predict_alone

        predict_alone()
        return
    from sotglp.cli import main as whole

    whole()


if __name__ == "__main__":
    main()
