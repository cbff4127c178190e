"""Fetching the Java servers' jars: once, whole, and again after a failure. Against a small repository of our own."""

import io
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from devstack.errors import DownloadError, StartCancelledError
from devstack.jars import JarSet, cache_folder, class_path

JARS = JarSet("example", ("org.example:server:1.0",))
DESCRIPTOR = """<project><modelVersion>4.0.0</modelVersion><groupId>org.example</groupId>
<artifactId>{name}</artifactId><version>1.0</version><dependencies>{dependencies}</dependencies></project>"""
DEPENDENCY = (
    "<dependency><groupId>org.example</groupId><artifactId>library</artifactId><version>1.0</version></dependency>"
)


def _jar() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as jar:
        jar.writestr("Main.class", b"code" * 100)
    return buffer.getvalue()


class Repository(ThreadingHTTPServer):
    """Serves ``server`` 1.0, which depends on ``library`` 1.0; or what a test puts in their place."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        base = "/org/example"
        self.files = {
            f"{base}/server/1.0/server-1.0.pom": DESCRIPTOR.format(name="server", dependencies=DEPENDENCY).encode(),
            f"{base}/library/1.0/library-1.0.pom": DESCRIPTOR.format(name="library", dependencies="").encode(),
            f"{base}/server/1.0/server-1.0.jar": _jar(),
            f"{base}/library/1.0/library-1.0.jar": _jar(),
        }
        self.requested: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    server: Repository

    def do_GET(self) -> None:
        self.server.requested.append(self.path)
        body = self.server.files.get(self.path)
        self.send_response(404 if body is None else 200)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *arguments: object) -> None:
        """Not on the test's standard error."""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    with Repository() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        settings = tmp_path / "jgo.conf"
        settings.write_text(f"[repositories]\ncentral = http://127.0.0.1:{server.server_port}\n")
        monkeypatch.setenv("JGO_CONFIG_FILE", str(settings))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        yield server
        server.shutdown()
        thread.join()


def _resolve() -> str:
    return class_path(JARS, lambda text: None, threading.Event())


def test_class_path_holds_the_jar_and_its_dependency(repository: Repository) -> None:
    paths = [Path(part) for part in _resolve().split(":")]

    assert [path.name for path in paths] == ["library-1.0.jar", "server-1.0.jar"]
    assert all(zipfile.is_zipfile(path) for path in paths)
    assert all(path.is_relative_to(cache_folder()) for path in paths)


def test_second_start_asks_the_repository_for_nothing(repository: Repository) -> None:
    first = _resolve()
    repository.requested.clear()

    assert _resolve() == first
    assert repository.requested == []


def test_two_first_starts_download_once(repository: Repository) -> None:
    with ThreadPoolExecutor(2) as pool:
        paths = {future.result() for future in [pool.submit(_resolve), pool.submit(_resolve)]}

    assert len(paths) == 1
    assert repository.requested.count("/org/example/server/1.0/server-1.0.jar") == 1


@pytest.mark.parametrize("replacement", [None, _jar().replace(b"code", b"c0de", 1)], ids=["missing", "damaged"])
def test_failed_download_says_what_to_do_and_the_next_start_tries_again(
    repository: Repository, replacement: bytes | None
) -> None:
    path = "/org/example/library/1.0/library-1.0.jar"
    intact = repository.files.pop(path)
    if replacement is not None:
        repository.files[path] = replacement

    with pytest.raises(DownloadError, match=r"could not be downloaded.*\n.*start again"):
        _resolve()
    assert [entry.suffix for entry in (cache_folder() / "jars").iterdir()] == [".lock"]

    repository.files[path] = intact
    assert "library-1.0.jar" in _resolve()


def test_set_with_a_missing_file_is_fetched_again(repository: Repository) -> None:
    before = _resolve()
    Path(before.split(":")[0]).unlink()

    assert _resolve() == before
    assert all(Path(part).exists() for part in before.split(":"))


def test_cancelled_start_stops_downloading(repository: Repository) -> None:
    cancelled = threading.Event()
    cancelled.set()

    with pytest.raises(StartCancelledError):
        class_path(JARS, lambda text: None, cancelled)
