"""The folders of results: whether they can be written to, and making them."""

import os
from pathlib import Path
from typing import Literal

from srcli.errors import OutputError
from srcli.files import is_folder, is_there, one_line

__all__ = ["check_folder", "make_folder"]


def check_folder(target: Path) -> None:
    """Fail before the work, not after it, where the folder of a result cannot be made.

    Raises:
        OutputError: If so.
    """
    for parent in target.parents:
        # In this order: another thread may be making it at this very moment.
        if not is_there(parent):
            continue
        if not is_folder(parent):
            raise OutputError(
                f"cannot write {one_line(str(target))}: {one_line(str(parent))} is not a folder; "
                "choose another --output"
            )
        if os.access(parent, os.W_OK | os.X_OK):
            return
        raise OutputError(
            f"cannot write {one_line(str(target))}: no permission in "
            f"{one_line(str(parent))}; choose another --output"
        )


def make_folder(target: Path, existing: Literal["error", "skip", "overwrite"]) -> None:
    """Make the folder of a result.

    Raises:
        OutputError: If that fails, or the result has appeared since the plan was made.
    """
    if existing == "error" and is_there(target):
        raise OutputError(
            f"{one_line(str(target))} has appeared meanwhile; use --overwrite or --skip-existing"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot make the folder {one_line(str(target.parent))}: {error.strerror}; "
            "choose another --output"
        ) from error
