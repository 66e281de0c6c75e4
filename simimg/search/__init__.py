"""Embeddings of pictures, the pictures whose embeddings are close, and whether they are copies.

    building    files or a data set  ->  embeddings, only of what is new  ->  index
    find        a query  ->  views  ->  nearest in the index  ->  verified, with reasons  ->  found
"""

from simimg.search.building import IndexUpdate, index_dataset, index_folder
from simimg.search.embeddings import SHIPPED_MODELS, Embedder, load_embedder
from simimg.search.find import Finder, Found, Query, load_query
from simimg.search.index import Match, Picture, SearchIndex
from simimg.search.projection import BY
from simimg.search.verify import Verification

__all__ = [
    "BY",
    "SHIPPED_MODELS",
    "Embedder",
    "Finder",
    "Found",
    "IndexUpdate",
    "Match",
    "Picture",
    "Query",
    "SearchIndex",
    "Verification",
    "index_dataset",
    "index_folder",
    "load_embedder",
    "load_query",
]
