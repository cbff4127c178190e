"""The addresses of `/api/v1/` that tell what became of alerts; each is taken with and without the slash at its end."""

from django.urls import re_path

from delivery.api import views

urlpatterns = [
    re_path(r"^inbox/(?P<entry_id>[0-9a-f]{24})/?$", views.MyAlertView.as_view()),
    re_path(r"^not-sent/?$", views.NotSentView.as_view()),
]
