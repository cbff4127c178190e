"""The addresses of `/api/v1/`; each is taken with and without the slash at its end."""

from django.urls import re_path

from followers.api import audience
from followers.api.views import NothingHere
from notifications.api import alerts, erasure, person, views

ENTRY = r"^inbox/(?P<entry_id>[0-9a-f]{24})"

urlpatterns = [
    re_path(r"^traders/?$", audience.TradersView.as_view()),
    re_path(r"^followers/?$", audience.FollowersView.as_view()),
    re_path(r"^followers/(?P<external_id>.{1,128}?)/?$", erasure.FollowerEraseView.as_view()),
    re_path(r"^follows/?$", audience.FollowsView.as_view()),
    re_path(r"^follows/(?P<trader_id>[^/]{1,128})/(?P<follower_id>[^/]{1,128})/?$", audience.FollowView.as_view()),
    re_path(r"^endpoints/?$", audience.EndpointsView.as_view()),
    re_path(r"^endpoints/(?P<endpoint_id>[0-9a-f]{24})/?$", audience.EndpointView.as_view()),
    re_path(r"^portfolios/?$", audience.PortfoliosView.as_view()),
    re_path(r"^notifications/?$", alerts.AlertsView.as_view()),
    re_path(r"^notifications/(?P<notification_id>[0-9a-f]{24})/?$", alerts.AlertView.as_view()),
    re_path(r"^tokens/?$", views.TokensView.as_view()),
    re_path(r"^ws-ticket/?$", views.TicketView.as_view()),
    re_path(r"^preferences/?$", person.PreferencesView.as_view()),
    re_path(r"^devices/?$", person.DevicesView.as_view()),
    re_path(r"^devices/(?P<device_id>[0-9a-f]{24})/?$", person.DeviceView.as_view()),
    re_path(r"^inbox/?$", views.InboxView.as_view()),
    re_path(r"^inbox/count/?$", views.InboxCountView.as_view()),
    re_path(r"^inbox/read/?$", views.InboxReadView.as_view()),
    re_path(r"^inbox/unread/?$", views.InboxUnreadView.as_view()),
    re_path(r"^inbox/archive/?$", views.InboxArchiveView.as_view()),
    re_path(ENTRY + r"/read/?$", views.EntryReadView.as_view()),
    re_path(ENTRY + r"/unread/?$", views.EntryUnreadView.as_view()),
    re_path(ENTRY + r"/archive/?$", views.EntryArchiveView.as_view()),
    re_path(ENTRY + r"/ack/?$", views.EntryAckView.as_view()),
    re_path(r"", NothingHere.as_view()),
]
