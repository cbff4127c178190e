"""What a state folder holds besides the servers' data: the lock, the secrets and the env file."""

import base64
import fcntl
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from devstack.errors import AlreadyRunningError

_OWNER_ONLY = 0o600


class FolderLock:
    """Lets one process at a time use a state folder. The kernel frees it when the process ends, however it ends."""

    def __init__(self, directory: Path) -> None:
        """
        Raises:
          AlreadyRunningError: another process holds it.
        """
        self._descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, _OWNER_ONLY)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip() or "?"
            os.close(self._descriptor)
            raise AlreadyRunningError(
                f"{directory} is in use by process {holder}: stop that one, or set DEVSTACK_DIR to another folder."
            ) from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode("ascii"), 0)

    def release(self) -> None:
        os.close(self._descriptor)


def prepare_folder(directory: Path) -> None:
    """Create the state folder, with a .gitignore of its own, for it will hold secrets."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / ".gitignore").write_text("*\n", encoding="ascii")


def load_secrets(path: Path) -> dict[str, str]:
    """The state folder's secrets, made on first use: a restart must be able to decrypt what is stored."""
    if not path.exists():
        made = {
            "DJANGO_SECRET_KEY": secrets.token_urlsafe(50),
            "ENDPOINT_ENCRYPTION_KEYS": _key(),
            "ENDPOINT_HASH_KEY": _key(),
        }
        _write_atomically(path, json.dumps(made, indent=1))
    loaded: dict[str, str] = json.loads(path.read_text(encoding="ascii"))
    return loaded


def write_env(path: Path, env: Mapping[str, str]) -> None:
    """Write ``KEY=value`` lines, renamed into place, so that a reader sees all of them or no file."""
    _write_atomically(path, "".join(f"{name}={value}\n" for name, value in env.items()))


def _key() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode("ascii")


def _write_atomically(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.unlink(missing_ok=True)  # Left by a crash; with O_EXCL the mode below is the one it gets.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
