"""The sandbox's credentials: made once per directory, so that a vendor that restarts still knows its clients."""

from __future__ import annotations

import os
import secrets
import ssl
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

import orjson
import trustme
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

CREDENTIALS_FILE = "credentials.json"
CA_FILE = "apns-ca.pem"
SERVER_CERTIFICATE_FILE = "apns-server.pem"
APNS_KEY_FILE = "apns-key.p8"
SERVICE_ACCOUNT_FILE = "fcm-service-account.json"
ENVIRONMENT_FILE = "vendors.env"


@dataclass(frozen=True, slots=True)
class Credentials:
    """Everything secret of the five vendors, in the forms they issue it."""

    fcm_project_id: str
    fcm_client_email: str
    fcm_private_key_id: str
    fcm_private_key: str  # RSA, PKCS 8 PEM.
    fcm_token_secret: str  # Signs the bearer tokens that the OAuth endpoint issues.
    apns_key: str  # P-256, PKCS 8 PEM: the contents of a .p8 file.
    apns_key_id: str  # 10 characters.
    apns_team_id: str  # 10 characters.
    apns_topic: str
    twilio_account_sid: str
    twilio_auth_token: str
    twilio_from: str
    discord_bot_token: str
    onesignal_app_id: str
    onesignal_api_key: str


def load_or_create(directory: Path) -> Credentials:
    """The directory's credentials, made at the first call."""
    path = directory / CREDENTIALS_FILE
    if path.exists():
        return Credentials(**orjson.loads(path.read_bytes()))
    directory.mkdir(parents=True, exist_ok=True)
    made = _create()
    write_private(path, orjson.dumps(asdict(made), option=orjson.OPT_INDENT_2))
    return made


def _create() -> Credentials:
    project = f"sandbox-{secrets.token_hex(3)}"
    return Credentials(
        fcm_project_id=project,
        fcm_client_email=f"notifyhub@{project}.iam.gserviceaccount.com",
        fcm_private_key_id=secrets.token_hex(20),
        fcm_private_key=_pem(rsa.generate_private_key(public_exponent=65537, key_size=2048)),
        fcm_token_secret=secrets.token_hex(32),
        apns_key=_pem(ec.generate_private_key(ec.SECP256R1())),
        apns_key_id=secrets.token_hex(5).upper(),
        apns_team_id=secrets.token_hex(5).upper(),
        apns_topic="com.example.notifyhub",
        twilio_account_sid=f"AC{secrets.token_hex(16)}",
        twilio_auth_token=secrets.token_hex(16),
        twilio_from="+15005550006",
        discord_bot_token=f"{secrets.token_urlsafe(18)}.{secrets.token_urlsafe(4)}.{secrets.token_urlsafe(28)}",
        onesignal_app_id=str(uuid4()),
        onesignal_api_key=f"os_v2_app_{secrets.token_hex(32)}",
    )


def _pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def server_tls(directory: Path) -> ssl.SSLContext:
    """APNs' TLS side; the certificate chain is made once and outlives a restart, as clients hold its CA.

    The server has a certificate of its own under the CA: clients built on rustls refuse a CA certificate there.
    """
    chain = directory / SERVER_CERTIFICATE_FILE
    if not (chain.exists() and (directory / CA_FILE).exists()):
        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1", "localhost")
        authority.cert_pem.write_to_path(directory / CA_FILE)
        write_private(chain, certificate.private_key_and_cert_chain_pem.bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(chain)
    context.set_alpn_protocols(["h2"])
    return context


def environment(directory: Path, made: Credentials, ports: dict[str, int]) -> dict[str, str]:
    """The variables that make the project use the sandbox; also writes the key files that they name."""
    origins = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    token_url = f"{origins['fcm']}/token"
    _write_service_account(directory / SERVICE_ACCOUNT_FILE, made, token_url)
    write_private(directory / APNS_KEY_FILE, made.apns_key.encode())
    return {
        "FCM_BASE_URL": origins["fcm"],
        "FCM_TOKEN_URL": token_url,
        "FCM_CREDENTIALS_FILE": str(directory / SERVICE_ACCOUNT_FILE),
        "APNS_BASE_URL": f"https://127.0.0.1:{ports['apns']}",
        "APNS_CA_FILE": str(directory / CA_FILE),
        "APNS_KEY_FILE": str(directory / APNS_KEY_FILE),
        "APNS_KEY_ID": made.apns_key_id,
        "APNS_TEAM_ID": made.apns_team_id,
        "APNS_TOPIC": made.apns_topic,
        "TWILIO_BASE_URL": origins["twilio"],
        "TWILIO_ACCOUNT_SID": made.twilio_account_sid,
        "TWILIO_AUTH_TOKEN": made.twilio_auth_token,
        "TWILIO_FROM": made.twilio_from,
        "DISCORD_BASE_URL": origins["discord"],
        "DISCORD_BOT_TOKEN": made.discord_bot_token,
        "ONESIGNAL_BASE_URL": origins["onesignal"],
        "ONESIGNAL_APP_ID": made.onesignal_app_id,
        "ONESIGNAL_API_KEY": made.onesignal_api_key,
        "VENDOR_CONTROL_URL": origins["control"],
    }


def _write_service_account(path: Path, made: Credentials, token_url: str) -> None:
    account = {
        "type": "service_account",
        "project_id": made.fcm_project_id,
        "private_key_id": made.fcm_private_key_id,
        "private_key": made.fcm_private_key,
        "client_email": made.fcm_client_email,
        "client_id": "100000000000000000000",
        "auth_uri": "https://accounts.google.com/o/oauth2/auth",
        "token_uri": token_url,
    }
    write_private(path, orjson.dumps(account, option=orjson.OPT_INDENT_2))


def write_environment(directory: Path, variables: dict[str, str]) -> None:
    """Write `vendors.env`, renamed into place, so that whoever sees it sees all of it."""
    text = "".join(f"{name}={value}\n" for name, value in variables.items())
    write_private(directory / ENVIRONMENT_FILE, text.encode())


def read_environment(directory: Path) -> dict[str, str]:
    lines = (directory / ENVIRONMENT_FILE).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner reads, whole or not at all."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.touch(mode=0o600)
    partial.write_bytes(content)
    partial.rename(path)
