"""Sandbox vendors: APNs, FCM, Twilio, Discord and OneSignal as local servers that speak the vendors' protocols.

They validate what they are sent as strictly as the vendors do, refuse in the vendors' own words, misbehave on
demand (latency, throttling, dead addresses, resets), and count what a person would have seen twice.

- `python -m devstack.vendors` runs them all in one process and writes `DIR/vendors.env`.
- `devstack.vendors.process.VendorProcess` does that as a child of a test or a demo.
- `devstack.vendors.client.Sandbox` reads their counters and tells them how to misbehave.
"""
