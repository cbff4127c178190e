"""Where the pages live."""

from django.contrib import admin
from django.templatetags.static import static
from django.urls import include, path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

from delivery.operations_page import operations
from notifyhub import health, metrics

admin.autodiscover()

urlpatterns = [
    path("admin/operations/", admin.site.admin_view(operations), name="operations"),
    path("admin/", admin.site.urls),
    path("demo/", include("notifications.urls")),
    path("favicon.ico", RedirectView.as_view(url=static("notifications/icon.svg"))),  # Browsers ask for it unasked.
    path("api/schema/", SpectacularAPIView.as_view(), name="schema"),
    path("api/docs/", SpectacularSwaggerSplitView.as_view(url_name="schema"), name="docs"),
    path("api/v1/", include("delivery.api.urls")),
    path("api/v1/", include("notifications.api.urls")),  # The last one: it answers whatever nobody knows.
    path("hooks/", include("delivery.urls")),
    path("healthz", health.healthz),
    path("readyz", health.readyz),
    path("metrics", metrics.metrics),
]
