"""Run the command line, as ``srcli`` and as ``python -m srcli``."""

import sys

__all__ = ["main"]


def main() -> None:
    """Run it; Ctrl-C before a command has begun, as while it is imported, ends it in one word."""
    try:
        from srcli.cli.app import main as run  # noqa: PLC0415

        run()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
