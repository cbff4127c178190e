"""NotifyHub's settings and wiring."""

import ctypes.util
import functools

# django-mongodb-backend imports GeoDjango, which looks for the GDAL library under a dozen names by running ldconfig and
# the compiler. Where there is none, the import fails and is tried again, three times in all: 0.7 of the 1.8 seconds
# that every process takes to start. Remembering what was not found saves most of that.
ctypes.util.find_library = functools.cache(ctypes.util.find_library)
