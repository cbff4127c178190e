"""Tests of the notifications app."""

from hypothesis import HealthCheck, settings

# A busy machine is no reason to fail: no deadline per example. Failures are printed in full, so that none need be kept.
settings.register_profile(
    "notifyhub", deadline=None, database=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("notifyhub")
