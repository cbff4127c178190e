"""Jars of the Java servers, resolved once with jgo into a cache outside the state folder.

``$XDG_CACHE_HOME/notifyhub/jars/NAME-HASH/`` holds one set. A set is fetched into a staging folder beside it and
renamed into place, under a lock file, so a half-fetched one is never seen and two first starts fetch it once.
A company mirror is taken from jgo's own settings file (``[repositories]``; an entry named ``central`` replaces the
default).
"""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jgo.config import GlobalSettings
from jgo.constants import MAVEN_CENTRAL_URL
from jgo.maven import Artifact, Dependency, MavenContext, PythonResolver

from devstack.errors import DownloadError, StartCancelledError

_ATTEMPTS = 3
_PARALLEL_DOWNLOADS = 8
_MANIFEST = "manifest.json"

Report = Callable[[str], None]


@dataclass(frozen=True)
class JarSet:
    """A class path: the coordinates (``group:artifact:version``) whose jars and dependencies make it up."""

    name: str
    coordinates: tuple[str, ...]

    @property
    def key(self) -> str:
        digest = hashlib.sha256("\n".join(self.coordinates).encode()).hexdigest()
        return f"{self.name}-{digest[:12]}"


def cache_folder() -> Path:
    """Where downloads are kept, shared by all state folders of this user."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "notifyhub"


def class_path(jar_set: JarSet, report: Report, cancelled: threading.Event) -> str:
    """The set's class path, fetched first if the cache does not hold it whole.

    Raises:
      DownloadError: it could not be fetched; nothing is left behind.
      StartCancelledError: ``cancelled`` was set meanwhile.
    """
    root = cache_folder() / "jars"
    folder = root / jar_set.key
    jars = _cached(folder)
    if jars is None:
        root.mkdir(parents=True, exist_ok=True)
        with _lock(root / f"{jar_set.key}.lock", report, cancelled):
            jars = _cached(folder)  # Another process may have fetched it while this one waited.
            if jars is None:
                _fetch(jar_set, folder, report, cancelled)
                jars = _cached(folder)
    if jars is None:
        raise DownloadError(f"{folder} is not as it was just written; remove it and start again.")
    return os.pathsep.join(str(jar) for jar in jars)


def _cached(folder: Path) -> list[Path] | None:
    """The jars of a complete set; None when there is none or a file is missing or cut short."""
    try:
        sizes: dict[str, int] = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        jars = [folder / name for name in sizes]
        return jars if all(jar.stat().st_size == sizes[jar.name] for jar in jars) else None
    except (FileNotFoundError, ValueError):
        return None


@contextmanager
def _lock(path: Path, report: Report, cancelled: threading.Event) -> Iterator[None]:
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                report("another process is downloading the same jars, waiting for it")
                if cancelled.wait(0.2):
                    raise StartCancelledError("The download was cancelled.") from None
        yield


def _fetch(jar_set: JarSet, folder: Path, report: Report, cancelled: threading.Event) -> None:
    prefix = f".{jar_set.key}."
    for stale in folder.parent.glob(f"{prefix}*"):  # Of a process that was killed; the lock says nobody is at it now.
        shutil.rmtree(stale)
    for attempt in range(1, _ATTEMPTS + 1):
        staging = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
        try:
            _download(jar_set, staging, report, cancelled)
        except StartCancelledError:
            raise
        except Exception as error:  # jgo lets through what its parsers, requests and the file system raise.
            if attempt == _ATTEMPTS:
                raise DownloadError(_advice(jar_set, error)) from error
            report(f"download failed, trying again ({attempt + 1} of {_ATTEMPTS})")
        else:
            shutil.rmtree(folder, ignore_errors=True)  # An incomplete set, if somebody removed a file of it.
            (staging / "jars").rename(folder)
            return
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _download(jar_set: JarSet, staging: Path, report: Report, cancelled: threading.Event) -> None:
    """Fetch all jars into ``staging/jars`` and list them, with their sizes, in a manifest."""
    report(f"resolving {jar_set.coordinates[0]} (first start only)")
    artifacts = _resolve(jar_set, staging / "repository")
    jars = staging / "jars"
    jars.mkdir()
    sizes: dict[str, int] = {}
    with ThreadPoolExecutor(_PARALLEL_DOWNLOADS, "devstack-download") as pool:
        futures = [pool.submit(artifact.resolve) for artifact in artifacts]
        try:
            for future in as_completed(futures):
                source = future.result()
                _check_jar(source)
                sizes[source.name] = source.stat().st_size
                source.rename(jars / source.name)
                megabytes = sum(sizes.values()) / 1e6
                report(f"downloading jars: {len(sizes)} of {len(artifacts)}, {megabytes:.0f} MB (first start only)")
                if cancelled.is_set():
                    raise StartCancelledError("The download was cancelled.")
        finally:
            pool.shutdown(cancel_futures=True)
    if len(sizes) != len(artifacts):
        raise ValueError("two artifacts share one file name")
    (jars / _MANIFEST).write_text(json.dumps(dict(sorted(sizes.items())), indent=1), encoding="utf-8")


def _resolve(jar_set: JarSet, repository: Path) -> list[Artifact]:
    """The coordinates' artifacts with their runtime dependencies; only descriptors are fetched here.

    jgo's environments are passed by: they need a JDK's ``jar`` tool to sort jars into class and module path, while
    everything here goes on the class path.
    """
    repositories = {"central": MAVEN_CENTRAL_URL, **GlobalSettings.load().repositories}
    context = MavenContext(PythonResolver(), repository, remote_repos=repositories, timeout=30)
    roots = []
    for coordinate in jar_set.coordinates:
        group, artifact, version = coordinate.split(":")
        roots.append(Dependency(context.project(group, artifact).at_version(version).artifact(), scope="compile"))
    inputs, transitive = context.resolver.resolve(roots)
    needed = [*inputs, *(found for found in transitive if found.scope in ("compile", "runtime"))]
    return [dependency.artifact for dependency in needed]


def _check_jar(path: Path) -> None:
    """Read every entry against its CRC: jgo only logs a checksum that does not match."""
    with zipfile.ZipFile(path) as jar:
        damaged = jar.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"{path.name} arrived damaged ({damaged})")


def _advice(jar_set: JarSet, error: Exception) -> str:
    return (
        f"The jars of {jar_set.coordinates[0]} could not be downloaded: {type(error).__name__}: {error}\n"
        "They are needed once. Check the network, HTTPS_PROXY, or the mirror named under [repositories] in "
        "~/.config/jgo.conf, then start again; nothing incomplete was kept."
    )
