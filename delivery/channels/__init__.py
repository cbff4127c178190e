"""The vendors' side of delivery: nothing else talks to a vendor.

`registry.configured_channels` builds what the settings name. Nothing is imported here, because the settings themselves
import `delivery.channels.policy`.
"""
