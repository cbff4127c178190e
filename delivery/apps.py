from django.apps import AppConfig


class DeliveryConfig(AppConfig):
    name = "delivery"

    def ready(self) -> None:
        from delivery import checks  # noqa: F401, PLC0415  Registers the system checks, once the settings are there.
