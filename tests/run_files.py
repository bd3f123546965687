"""What the tests of whole runs share."""

import hashlib


def contents(folder):
    """Every file below a folder, hidden ones included, by its path: checksums."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
