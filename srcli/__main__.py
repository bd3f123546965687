"""Run the command line, as ``srcli`` and as ``python -m srcli``."""

import sys

__all__ = ["main"]


def main() -> None:
    """Run it; Ctrl-C in the third of a second in which it is imported ends it as later on."""
    try:
        from srcli.cli.app import main as run  # noqa: PLC0415
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
