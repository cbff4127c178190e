"""The demo's pages; 404 unless DEMO_INBOX is on."""

from django.urls import path

from notifications import views

urlpatterns = [
    path("", views.demo_followers, name="demo_followers"),
    path("inbox/<str:external_id>/", views.demo_inbox, name="demo_inbox"),
    path("inbox/<str:external_id>/token", views.demo_token, name="demo_token"),
]
