"""The search page: a server for one index on this machine, and in `static/` the page that it serves.

app      what can be asked             guard    who may ask, how much, for how long
engine   searches, one after another   queries  what somebody looks for, in memory
shown    thumbnails by row             layout   the map
review   copies, and the plan of them  serving  HTTP
"""

from simimg.web.app import create_app
from simimg.web.serving import listening, serving

__all__ = ["create_app", "listening", "serving"]
