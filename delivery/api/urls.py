"""The pipeline's addresses of `/api/v1/`; each is taken with and without the slash at its end."""

from django.urls import re_path

from delivery.api import told, views
from delivery.api.serializers import UPDATE_ID

urlpatterns = [
    re_path(r"^inbox/(?P<entry_id>[0-9a-f]{24})/?$", told.MyAlertView.as_view()),
    re_path(r"^not-sent/?$", told.NotSentView.as_view()),
    re_path(r"^updates/?$", views.UpdatesView.as_view()),
    re_path(rf"^updates/(?P<external_id>{UPDATE_ID})/?$", views.UpdateView.as_view()),
    re_path(r"^test-alert/?$", views.TestAlertView.as_view()),
]
