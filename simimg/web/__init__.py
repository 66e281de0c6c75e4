"""The search page: a server for one index on this machine, and in `static/` the page that it serves.

app              what can be asked
request_guard    who may ask, how much, for how long
search_worker    searches, one after another
query_cache      queries, in memory
thumbnails       thumbnails by row
collection_map   the map
review           copies, and the plan of them
http_server      HTTP
"""

from simimg.web.app import create_app
from simimg.web.http_server import listening, serving

__all__ = ["create_app", "listening", "serving"]
