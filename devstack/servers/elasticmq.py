"""ElasticMQ, which speaks SQS: the alternative broker, for deployments on AWS."""

import urllib.request
from pathlib import Path
from urllib.parse import urlencode

from devstack.jars import JarSet
from devstack.servers.java import JavaServer


class ElasticMQ(JavaServer):
    """ElasticMQ 1.6 that keeps queues and messages through a crash, as SQS does."""

    name = "elasticmq"
    port_names = ("elasticmq",)
    heap_megabytes = 192
    jars = JarSet("elasticmq", ("org.elasticmq:elasticmq-server_2.13:1.6.14",))

    def prepare(self) -> None:
        super().prepare()
        self._configuration.write_text(self._settings(), encoding="utf-8")

    def command(self) -> list[str]:
        return self.java("org.elasticmq.server.Main", options=(f"-Dconfig.file={self._configuration}",))

    def is_answering(self) -> bool:
        query = urlencode({"Action": "ListQueues", "Version": "2012-11-05"})
        try:
            with urllib.request.urlopen(f"http://{self.address}/?{query}", timeout=1) as response:
                return b"ListQueuesResponse" in response.read()
        except OSError:  # urllib's errors are OSErrors too.
            return False

    def env(self) -> dict[str, str]:
        """ElasticMQ takes any credentials; SQS clients refuse to start without some."""
        return {
            "SQS_ENDPOINT_URL": f"http://{self.address}",
            "AWS_ACCESS_KEY_ID": "devstack",
            "AWS_SECRET_ACCESS_KEY": "devstack",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    @property
    def _configuration(self) -> Path:
        return self.data.with_name("elasticmq.conf")

    def _settings(self) -> str:
        # H2 writes half a second late by default; with no delay, what was accepted survives a SIGKILL.
        database = f"jdbc:h2:{self.data / 'messages'};WRITE_DELAY=0"
        return f"""\
include classpath("application.conf")
node-address {{ protocol = http, host = "127.0.0.1", port = {self.port}, context-path = "" }}
rest-sqs {{ enabled = true, bind-hostname = "127.0.0.1", bind-port = {self.port}, sqs-limits = strict }}
rest-stats {{ enabled = false }}
messages-storage {{
  enabled = true, driver-class-name = "org.h2.Driver", uri = "{database}", username = "", password = ""
  prune-data-on-init = false
}}
"""
