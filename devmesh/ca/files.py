"""Files that only their owner may read."""

import os
from pathlib import Path


def private_directory(directory: Path) -> Path:
    """Create it 0700, or make it so."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    return directory


def write_private(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Replace the file at once, 0600 from its first byte on: a crash leaves the old or the new one whole.

    `durable=False` is for what only describes running processes: it need not outlive the machine.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        if durable:
            os.fsync(file.fileno())
    temporary.replace(path)
