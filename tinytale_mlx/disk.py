"""Making sure that what was written is on the disk."""

import os
from pathlib import Path


def flush(path: Path) -> None:
    """Have the operating system put a file, or a folder's list of names, on the disk now."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
