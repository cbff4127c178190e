"""NotifyHub's settings and wiring."""

import ctypes.util

# django-mongodb-backend imports GeoDjango, which looks for the GDAL and GEOS libraries under a dozen names by running
# ldconfig and the compiler: a quarter of the time that every process takes to start. Nothing here is geographic, so the
# answer that there are none is given at once.
_find_library = ctypes.util.find_library


def _find_library_but_not_gis(name: str) -> str | None:
    return None if name.lower().startswith(("gdal", "geos")) else _find_library(name)


ctypes.util.find_library = _find_library_but_not_gis
