#!/usr/bin/env python
"""NotifyHub's command line."""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "notifyhub.settings")
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line

    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        # One line that names the setting is worth more to an operator than a traceback.
        sys.exit(f"notifyhub: {error}")


if __name__ == "__main__":
    main()
