"""The search page: a server for one index or several on this machine. `static/` has the page itself.

app              routes
request_guard    checks of requests: host, origin, token, size, time
served_index     what an index is served with, and its columns
search_worker    the thread that searches
query_cache      uploaded queries, in memory
thumbnails       images as JPEG, by row
photo_details    EXIF of an image, and its folder in the file manager
collection_map   the map of the collection
review           copies, and the plan of their removal
collection_findings  findings of an audit, and decisions about them
groups_so_far    copies while they are searched for
background_job   long computations with progress
http_server      uvicorn in a thread
"""

from simimg.web.app import create_app
from simimg.web.http_server import listening, serving
from simimg.web.served_index import ServedIndex

__all__ = ["ServedIndex", "create_app", "listening", "serving"]
