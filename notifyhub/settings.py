"""Every setting of NotifyHub, read once from the environment. `.env.example` names them all."""

import sys
from dataclasses import fields
from hashlib import sha256
from os import getuid
from pathlib import Path
from tempfile import gettempdir
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

from corsheaders.defaults import default_headers
from pymongo.uri_parser import parse_uri

from delivery.channels.credentials import CREDENTIALS, is_on
from delivery.channels.policy import DEFAULT_POLICIES, ChannelPolicy
from notifications.validity import ValidityRules
from notifyhub import api_schema
from notifyhub.admin_menu import ADMIN_SECTIONS, sidebar_link
from notifyhub.csp import OWN_PAGES
from notifyhub.environment import Environment, ImproperlyConfigured
from notifyhub.logs import logging_config

BASE_DIR = Path(__file__).resolve().parent.parent
env = Environment(BASE_DIR / ".env")

# --- Django ----------------------------------------------------------------------------------------------------------
SECRET_KEY = env.text("DJANGO_SECRET_KEY")
DEBUG = env.flag("DJANGO_DEBUG")
ALLOWED_HOSTS = env.texts("DJANGO_ALLOWED_HOSTS", "localhost,127.0.0.1")
CSRF_TRUSTED_ORIGINS = env.texts("DJANGO_CSRF_TRUSTED_ORIGINS")

INSTALLED_APPS = [
    "unfold",
    "unfold.contrib.filters",
    "unfold.contrib.forms",
    "notifyhub.apps.MongoAdminConfig",
    "notifyhub.apps.MongoAuthConfig",
    "notifyhub.apps.MongoContentTypesConfig",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "corsheaders",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "followers",
    "notifications",
    "delivery",  # Before django_dramatiq: its rundramatiq builds on theirs.
    "django_dramatiq",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "corsheaders.middleware.CorsMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "notifyhub.csp.ContentSecurityPolicy",
]
ROOT_URLCONF = "notifyhub.urls"
ASGI_APPLICATION = "notifyhub.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_I18N = True
USE_TZ = True
STATIC_URL = "/static/"
# Static files are served from the apps' own folders, so that no collectstatic is needed to run.
WHITENOISE_USE_FINDERS = True
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]

# --- Tracing ---------------------------------------------------------------------------------------------------------
# OpenTelemetry; the standard OTEL_* variables say where to (docs/operations.md).
TRACING_ENABLED = env.flag_needing(
    "TRACING_ENABLED", "opentelemetry.instrumentation.django", "pip install -r requirements-otel.txt"
)
TRACER = "notifyhub.tracing.start"
# Spans for single calls of a vendor, per batch: what went wrong first, then the slowest.
TRACING_CALLS_PER_BATCH = env.integer("TRACING_CALLS_PER_BATCH", 5, minimum=0)

# --- MongoDB ---------------------------------------------------------------------------------------------------------
MONGODB_URL = env.url("MONGODB_URL", {"mongodb", "mongodb+srv"})
try:
    _mongodb = parse_uri(MONGODB_URL)
except OSError:
    # The TLS library does not always say which one.
    _files = [value for name, value in parse_qsl(urlsplit(MONGODB_URL).query) if name.lower().endswith("file")]
    raise ImproperlyConfigured(f"MONGODB_URL names a file that cannot be read: {', '.join(_files)}.") from None
except Exception:
    # Not the driver's own words: they can quote the password.
    raise ImproperlyConfigured("MONGODB_URL is not a MongoDB connection string that the driver can read.") from None
_database_name = _mongodb["database"]
if not _database_name:
    raise ImproperlyConfigured("MONGODB_URL must end with the database's name, such as …:27017/notifyhub.")
DATABASES = {
    "default": {
        "ENGINE": "django_mongodb_backend",
        "HOST": MONGODB_URL,
        "NAME": _database_name,
        # Majority and journaled is the safe default for everything; statements that may do with less say so.
        # The timeouts bound how long a lost server holds a worker before the statement is tried again. A connection
        # that went silent is given up when the monitor has heard nothing for a heartbeat and a connect timeout: after
        # 10 s. By the driver's defaults it is 30 s, a whole lease.
        "OPTIONS": {
            "w": "majority",
            "journal": True,
            "serverSelectionTimeoutMS": 5_000,
            "connectTimeoutMS": 5_000,
            "heartbeatFrequencyMS": 5_000,
            "tz_aware": False,
        },
    }
}
DATABASE_ROUTERS = ["django_mongodb_backend.routers.MongoRouter"]
DEFAULT_AUTO_FIELD = "django_mongodb_backend.fields.ObjectIdAutoField"
MIGRATION_MODULES = {
    "admin": "notifyhub.migrations.admin",
    "auth": "notifyhub.migrations.auth",
    "contenttypes": "notifyhub.migrations.contenttypes",
}

# --- Redis: live push, presence, shared limits -----------------------------------------------------------------------
REDIS_URL = env.url("REDIS_URL", {"redis", "rediss", "unix"})
CHANNEL_LAYERS = {
    "default": {
        # The pub/sub layer keeps its sockets through a Redis restart; the core layer drops them all.
        "BACKEND": "notifyhub.channel_layer.ChannelLayer",
        # redis-py's own 5 s socket timeout would kill idle subscriptions.
        "CONFIG": {"hosts": [{"address": REDIS_URL, "socket_timeout": 15}], "prefix": "notifyhub"},
    }
}
PRESENCE_TTL_SECONDS = env.integer("PRESENCE_TTL_SECONDS", 15, minimum=3)  # Renewed at a third of it.

# --- Dispatch queue --------------------------------------------------------------------------------------------------
DRAMATIQ_BROKER_URL = env.url("DRAMATIQ_BROKER_URL", {"redis", "rediss", "sqs"}, default=REDIS_URL)
SQS_ENDPOINT_URL = env.text("SQS_ENDPOINT_URL", "")  # Empty = Amazon's own.
SQS_VISIBILITY_TIMEOUT_SECONDS = env.integer("SQS_VISIBILITY_TIMEOUT_SECONDS", 120, minimum=30)
QUEUE_NAMESPACE = env.text("QUEUE_NAMESPACE", "notifyhub")
# What a worker has in hand at SIGTERM ends within it: longer than the longest channel's timeout, and shorter than the
# 30 s after which Kubernetes kills. What did not end wakes up when its lease runs out.
SHUTDOWN_GRACE_SECONDS = env.integer("SHUTDOWN_GRACE_SECONDS", 25, minimum=1)
DRAMATIQ_AUTODISCOVER_MODULES = ["actors"]
# Per worker process; each holds one batch at a time. 0 = as many as its queues may have in hand (delivery/broker.py).
WORKER_THREADS = env.integer("DRAMATIQ_NTHREADS", 0)
DRAMATIQ_BROKER = {
    "BROKER": "delivery.broker.make_broker",
    "OPTIONS": {"url": DRAMATIQ_BROKER_URL, "namespace": QUEUE_NAMESPACE, "sqs_endpoint_url": SQS_ENDPOINT_URL},
    # No Retries: whatever is unfinished wakes up from the database, so a second scheduler would only repeat hints.
    # No TimeLimit: it raises inside running threads; leases and the channels' own timeouts bound the work.
    "MIDDLEWARE": [
        *(["delivery.middleware.Tracing"] if TRACING_ENABLED else []),
        "dramatiq.middleware.ShutdownNotifications",
        "delivery.middleware.UvloopAsyncIO",
        "dramatiq.middleware.CurrentMessage",
        "django_dramatiq.middleware.DbConnectionsMiddleware",
        # After AsyncIO: it opens the vendors' connections in the running event loop.
        "delivery.middleware.VendorConnections",
    ],
}

# --- Kafka -----------------------------------------------------------------------------------------------------------
KAFKA_BOOTSTRAP_SERVERS = env.texts("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092")
KAFKA_TRADE_TOPIC = env.text("KAFKA_TRADE_TOPIC", "trade.executed")
KAFKA_GROUP_ID = env.text("KAFKA_GROUP_ID", "notifyhub")
KAFKA_MAX_POLL_RECORDS = env.integer("KAFKA_MAX_POLL_RECORDS", 500, minimum=1)
# A consumer that died without a word is replaced after this time; Kafka's own least is 6 s. Heartbeats come every 3 s.
KAFKA_SESSION_TIMEOUT_SECONDS = env.integer("KAFKA_SESSION_TIMEOUT_SECONDS", 15, minimum=6)
KAFKA_SECURITY_PROTOCOL = env.text("KAFKA_SECURITY_PROTOCOL", "PLAINTEXT")
KAFKA_SASL_MECHANISM = env.text("KAFKA_SASL_MECHANISM", "")
KAFKA_SASL_USERNAME = env.text("KAFKA_SASL_USERNAME", "")
KAFKA_SASL_PASSWORD = env.text("KAFKA_SASL_PASSWORD", "")
KAFKA_SSL_CAFILE = env.text("KAFKA_SSL_CAFILE", "")
KAFKA_SSL_CERTFILE = env.text("KAFKA_SSL_CERTFILE", "")
KAFKA_SSL_KEYFILE = env.text("KAFKA_SSL_KEYFILE", "")
# Unfinished batches above which no trades are taken in any more, and the share of them at which it goes on. A last
# resort for the database's sake: a million queued deliveries are 5,000 batches, or 50,000 where each holds only 20.
BACKLOG_MAX_BATCHES = env.integer("BACKLOG_MAX_BATCHES", 200_000, minimum=1)
BACKLOG_RESUME_SHARE = env.number("BACKLOG_RESUME_SHARE", 0.8, minimum=0.0)
if BACKLOG_RESUME_SHARE > 1:
    raise ImproperlyConfigured("BACKLOG_RESUME_SHARE must be at most 1: the share of BACKLOG_MAX_BATCHES to resume at.")
POISON_STOP_COUNT = env.integer("POISON_STOP_COUNT", 1_000, minimum=1)
POISON_STOP_SECONDS = env.integer("POISON_STOP_SECONDS", 60)

# --- Endpoint addresses at rest --------------------------------------------------------------------------------------
# The first key encrypts, all of them decrypt.
ENDPOINT_ENCRYPTION_KEYS = [
    env.key_bytes("ENDPOINT_ENCRYPTION_KEYS", key) for key in env.text("ENDPOINT_ENCRYPTION_KEYS").split(",")
]
ENDPOINT_HASH_KEY = env.key_bytes("ENDPOINT_HASH_KEY", env.text("ENDPOINT_HASH_KEY"))

# --- Fan-out ---------------------------------------------------------------------------------------------------------
FAN_OUT_CHUNK = env.integer("FAN_OUT_CHUNK", 2_000, minimum=1)  # Followers per bulk write.
# The same of normal trades, whose statements critical ones may have to wait for.
FAN_OUT_CHUNK_NORMAL = env.integer("FAN_OUT_CHUNK_NORMAL", 250, minimum=1)
# Follows of one shard; more are cut into equal shards, 64 at most. Below a chunk, so that a shard is one chunk.
FAN_OUT_SINGLE_SHARD_MAX = env.integer("FAN_OUT_SINGLE_SHARD_MAX", 1_800, minimum=1)
INAPP_KEEP = env.integer("INAPP_KEEP", 50, minimum=1)  # Newest in-app entries kept per follower and trader.
DELIVERY_BATCH = env.integer("DELIVERY_BATCH", 200, minimum=1)  # Deliveries per batch of a channel with a vendor key.
UNKEYED_BATCH = env.integer("UNKEYED_BATCH", 20, minimum=1)  # Without one: a crash leaves so many in doubt.
# So long after the last step of a critical alert other work waits before its next large statement; 0 = never.
RIGHT_OF_WAY_MS = env.integer("RIGHT_OF_WAY_MS", 500)
SHARD_MAX_FAILURES = env.integer("SHARD_MAX_FAILURES", 15, minimum=1)
# How long an alert is worth sending, from executedAt; ValidityRules has the defaults and the reasons.
VALIDITY: dict[str, Any] = {
    rule.name: env.integer(f"VALIDITY_{rule.name.upper()}", cast(int, rule.default), minimum=1)
    for rule in fields(ValidityRules)
    if rule.name.endswith("_seconds")
}
# Before the close, per exchange: SQUARE_OFF_SECONDS_BY_EXCHANGE=XNSE:900,XBOM:900
VALIDITY["square_off_seconds_by_exchange"] = env.numbers_by_name("SQUARE_OFF_SECONDS_BY_EXCHANGE")

# --- Who is sent what ------------------------------------------------------------------------------------------------
# The hours in which an SMS may be sent, in each follower's time zone: 08:00-21:00. Empty = always.
SMS_LEGAL_HOURS = env.hours("SMS_LEGAL_HOURS")
# SMS to one follower in a day of their own time zone; what is critical is counted and not dropped. 0 = no limit.
SMS_DAILY_CAP = env.integer("SMS_DAILY_CAP", 0, minimum=0)
# Then only these followers (external ids) are sent anything by a vendor.
NOTIFYHUB_TEST_MODE = env.flag("NOTIFYHUB_TEST_MODE")
NOTIFYHUB_TEST_FOLLOWERS = frozenset(env.texts("NOTIFYHUB_TEST_FOLLOWERS"))

# --- Claims and wake-ups ---------------------------------------------------------------------------------------------
LEASE_SECONDS = env.integer("LEASE_SECONDS", 30, minimum=6)  # Renewed at a third of it.
DISPATCH_INTERVAL_SECONDS = env.number("DISPATCH_INTERVAL_SECONDS", 1.0, minimum=0.05)
DISPATCH_SWEEP = env.integer("DISPATCH_SWEEP", 1_000, minimum=1)  # Batches and rows looked at per sweep.
HINTS_MAX = env.integer("HINTS_MAX", 10_000, minimum=1)  # A queue that holds more gets no repeated hints.
BREAKER_PAUSE_SECONDS = env.number("BREAKER_PAUSE_SECONDS", 5.0, minimum=0.1)  # To the first probe; doubles to 300.
# A wake-up that is overdue by more is a gap in the proof; far more than a sweep and a lease take together.
PROVE_OVERDUE_SECONDS = env.integer("PROVE_OVERDUE_SECONDS", 120, minimum=1)
BATCH_RETENTION_SECONDS = env.integer("BATCH_RETENTION_SECONDS", 86_400, minimum=60)  # Finished batches.

# --- Retention: what `manage.py prune` removes ------------------------------------------------------------------------
# A quarter answers nearly every question about an alert. Trades are few beside their alerts, and are asked about in a
# year's statements. Two days at least: the longest validity and its retries are over by then.
NOTIFICATION_RETENTION_DAYS = env.integer("NOTIFICATION_RETENTION_DAYS", 90, minimum=2)
EVENT_RETENTION_DAYS = env.integer("EVENT_RETENTION_DAYS", 400, minimum=2)
if EVENT_RETENTION_DAYS < NOTIFICATION_RETENTION_DAYS:
    raise ImproperlyConfigured("EVENT_RETENTION_DAYS must be at least NOTIFICATION_RETENTION_DAYS.")

# --- Channels --------------------------------------------------------------------------------------------------------
CHANNEL_POLICIES = {
    name: ChannelPolicy(
        retry_base_seconds=env.number(f"{name.upper()}_RETRY_BASE_SECONDS", default.retry_base_seconds, minimum=0.001),
        retry_cap_seconds=env.number(f"{name.upper()}_RETRY_CAP_SECONDS", default.retry_cap_seconds, minimum=0.001),
        max_attempts=env.integer(f"{name.upper()}_MAX_ATTEMPTS", default.max_attempts, minimum=1),
        timeout_seconds=env.number(f"{name.upper()}_TIMEOUT_SECONDS", default.timeout_seconds, minimum=0.1),
        connect_timeout_seconds=env.number(
            f"{name.upper()}_CONNECT_TIMEOUT_SECONDS", default.connect_timeout_seconds, minimum=0.1
        ),
        read_timeout_seconds=env.number(
            f"{name.upper()}_READ_TIMEOUT_SECONDS", default.read_timeout_seconds, minimum=0.1
        ),
        slow_seconds=env.number(f"{name.upper()}_SLOW_SECONDS", default.slow_seconds, minimum=0.01),
        concurrency=env.integer(f"{name.upper()}_CONCURRENCY", default.concurrency, minimum=1),
        rate_per_second=env.number(f"{name.upper()}_RATE_PER_SECOND", default.rate_per_second or 0) or None,
        resend_in_doubt=env.one_of(f"{name.upper()}_IN_DOUBT", "RESEND", {"RESEND", "REVIEW"}) == "RESEND",
    )
    for name, default in DEFAULT_POLICIES.items()
}
for _name, _policy in CHANNEL_POLICIES.items():
    if _policy.timeout_seconds > LEASE_SECONDS / 2:
        raise ImproperlyConfigured(
            f"{_name.upper()}_TIMEOUT_SECONDS must be at most half of LEASE_SECONDS ({LEASE_SECONDS}): "
            "no send may outlive the lease it was started under."
        )

FCM_BASE_URL = env.origin("FCM_BASE_URL", "https://fcm.googleapis.com")
FCM_TOKEN_URL = env.url("FCM_TOKEN_URL", {"http", "https"}, default="https://oauth2.googleapis.com/token")
FCM_CREDENTIALS_FILE = env.text("FCM_CREDENTIALS_FILE", "")
APNS_BASE_URL = env.origin("APNS_BASE_URL", "")  # Empty = Apple's production or sandbox host, by the endpoint.
APNS_CA_FILE = env.text("APNS_CA_FILE", "")
APNS_KEY_FILE = env.text("APNS_KEY_FILE", "")
APNS_KEY_ID = env.text("APNS_KEY_ID", "")
APNS_TEAM_ID = env.text("APNS_TEAM_ID", "")
APNS_TOPIC = env.text("APNS_TOPIC", "")
TWILIO_BASE_URL = env.origin("TWILIO_BASE_URL", "https://api.twilio.com")
TWILIO_ACCOUNT_SID = env.text("TWILIO_ACCOUNT_SID", "")
TWILIO_AUTH_TOKEN = env.text("TWILIO_AUTH_TOKEN", "")
TWILIO_FROM = env.text("TWILIO_FROM", "")
DISCORD_BASE_URL = env.origin("DISCORD_BASE_URL", "https://discord.com")
DISCORD_BOT_TOKEN = env.text("DISCORD_BOT_TOKEN", "")
ONESIGNAL_BASE_URL = env.origin("ONESIGNAL_BASE_URL", "https://api.onesignal.com")
ONESIGNAL_APP_ID = env.text("ONESIGNAL_APP_ID", "")
ONESIGNAL_API_KEY = env.text("ONESIGNAL_API_KEY", "")
# Receipts: where vendors reach us (empty = none are asked for), and the header that OneSignal must bring.
PUBLIC_BASE_URL = env.public_origin("PUBLIC_BASE_URL")
ONESIGNAL_HOOK_TOKEN = env.text("ONESIGNAL_HOOK_TOKEN", "")
for _channel in CREDENTIALS:
    is_on(_channel, sys.modules[__name__])  # Refuses a half configured channel before anything starts.

# --- Follower tokens -------------------------------------------------------------------------------------------------
FOLLOWER_TOKEN_SECONDS = env.integer("FOLLOWER_TOKEN_SECONDS", 900, minimum=1)
# The platform's own JWTs open an inbox too, by the public keys at this address. Empty = only ours do.
PLATFORM_JWKS_URL = env.secure_url("PLATFORM_JWKS_URL", is_plain_allowed=DEBUG)
PLATFORM_JWT_ISSUER = env.text("PLATFORM_JWT_ISSUER", "")
PLATFORM_JWT_AUDIENCE = env.text("PLATFORM_JWT_AUDIENCE", "")
PLATFORM_JWT_FOLLOWER_CLAIM = env.text("PLATFORM_JWT_FOLLOWER_CLAIM", "") or "sub"  # Holds the external id.
if PLATFORM_JWKS_URL and not (PLATFORM_JWT_ISSUER and PLATFORM_JWT_AUDIENCE):
    # Without them a token that the platform made for anybody else would open an inbox. Not a system check, because the
    # web process runs none.
    raise ImproperlyConfigured("PLATFORM_JWKS_URL needs both PLATFORM_JWT_ISSUER and PLATFORM_JWT_AUDIENCE.")
# Other sites whose pages show an inbox, such as https://app.example: they may open its socket and read its API.
INBOX_ORIGINS = CORS_ALLOWED_ORIGINS = env.texts("INBOX_ORIGINS")
CORS_URLS_REGEX = r"^/api/v1/"
CORS_EXPOSE_HEADERS = ["ETag", "Retry-After", "WWW-Authenticate", "Idempotency-Replayed"]
CORS_EXPOSE_HEADERS += ["RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"]
CORS_ALLOW_HEADERS = [*default_headers, "idempotency-key", "if-none-match"]
# A page that shows one follower's inbox to whoever opens it; for the demo only.
DEMO_INBOX = env.flag("DEMO_INBOX")

# --- REST API --------------------------------------------------------------------------------------------------------
# Follower tokens are made with the first and taken with any; to rotate, put a new one in front, and drop the old one a
# token's life later. Empty = DJANGO_SECRET_KEY.
FOLLOWER_TOKEN_SECRETS = env.texts("FOLLOWER_TOKEN_SECRETS")
API_SERVICE_PER_MINUTE = env.integer("API_SERVICE_PER_MINUTE", 1_200, minimum=1)  # Calls of one key.
API_FOLLOWER_PER_MINUTE = env.integer("API_FOLLOWER_PER_MINUTE", 300, minimum=1)  # Calls of one follower.
# Of a call, and of every other request: a thousand items with the longest addresses take 5 MB.
API_MAX_BODY_BYTES = DATA_UPLOAD_MAX_MEMORY_SIZE = env.integer("API_MAX_BODY_BYTES", 6_000_000, minimum=100_000)
# An erased follower's alerts stay, under a name that says nothing. Off = they go too.
ERASURE_KEEPS_NOTIFICATIONS = env.flag("ERASURE_KEEPS_NOTIFICATIONS", default=True)
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [],
    "UNAUTHENTICATED_USER": None,
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["followers.api.parsers.ExactJSONParser"],
    "DEFAULT_SCHEMA_CLASS": "followers.api.schema.ApiSchema",
    "DEFAULT_METADATA_CLASS": None,
    "EXCEPTION_HANDLER": "followers.api.errors.handle",
}
SPECTACULAR_SETTINGS = api_schema.SETTINGS

# --- Security --------------------------------------------------------------------------------------------------------
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = env.flag("DJANGO_SECURE_COOKIES", default=not DEBUG)
# Only ever sent over HTTPS, so that plain HTTP on a developer's machine stays possible. 0 = none.
SECURE_HSTS_SECONDS = env.integer("DJANGO_HSTS_SECONDS", 0 if DEBUG else 31_536_000)
SECURE_HSTS_INCLUDE_SUBDOMAINS = env.flag("DJANGO_HSTS_SUBDOMAINS")
# Preloading binds the whole domain for years, whoever else uses it: nothing that a service may decide.
SILENCED_SYSTEM_CHECKS = ["security.W021"]
SECURE_SSL_REDIRECT = env.flag("DJANGO_SSL_REDIRECT")
SECURE_REDIRECT_EXEMPT = [r"^(healthz|readyz|metrics)$"]  # Asked from inside, by plain HTTP.
# Only behind a proxy that sets X-Forwarded-Proto itself and drops what a client sends.
if env.flag("DJANGO_BEHIND_TLS_PROXY"):
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_CONTENT_TYPE_NOSNIFF = True
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {"DIRECTIVES": OWN_PAGES}  # The admin and the API's docs need more: notifyhub/csp.py.
ADMIN_LOGIN_FAILURES = env.integer("ADMIN_LOGIN_FAILURES", 5, minimum=1)
ADMIN_LOGIN_WINDOW_SECONDS = env.integer("ADMIN_LOGIN_WINDOW_SECONDS", 900, minimum=1)

# --- Admin -----------------------------------------------------------------------------------------------------------
UNFOLD = {
    "SITE_TITLE": "NotifyHub",
    "SITE_HEADER": "NotifyHub",
    "SITE_SUBHEADER": "Trade alerts",
    "SITE_SYMBOL": "notifications_active",
    "SITE_URL": None,
    "SHOW_BACK_BUTTON": True,
    "LOGIN": {"form": "notifyhub.admin_login.LoginForm"},
    "SIDEBAR": {
        "show_search": False,
        "navigation": [
            {
                "title": title,
                "separator": title != ADMIN_SECTIONS[0][0],
                "items": [sidebar_link(*item) for item in items],
            }
            for title, items in ADMIN_SECTIONS
        ],
    },
}

# --- Metrics ---------------------------------------------------------------------------------------------------------
# Where the processes of this machine count, so that /metrics can sum them up: the same for all of them, and another one
# for each stack. It lives as long as the machine is up, and a few 100 KB of it are used.
_stack = "\0".join([*sorted(map(str, _mongodb["nodelist"])), _database_name, QUEUE_NAMESPACE])
PROMETHEUS_MULTIPROC_DIR = (
    env.text("PROMETHEUS_MULTIPROC_DIR", "")
    or f"{gettempdir()}/notifyhub-metrics-{getuid()}-{sha256(_stack.encode()).hexdigest()[:12]}"
)
# Each process also serves its own counts, at the first free port from this one on; 0 = it does not.
METRICS_PORT = env.integer("METRICS_PORT", 0)

# --- Logs ------------------------------------------------------------------------------------------------------------
LOGGING = logging_config(
    env.one_of("LOG_LEVEL", "INFO", {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}), names_spans=TRACING_ENABLED
)
