"""Where vendors post their receipts; delivery/channels/twilio_sms.py gives the first address out."""

from django.urls import path

from delivery import hooks

urlpatterns = [
    path("twilio/<path:reference>/", hooks.twilio, name="twilio_hook"),
    path("onesignal/", hooks.onesignal, name="onesignal_hook"),
]
