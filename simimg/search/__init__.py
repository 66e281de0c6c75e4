"""Embeddings of pictures, the pictures whose embeddings are close, and whether they are copies.

building    files or a data set  ->  embeddings, only of what is new  ->  index
duplicates  an index  ->  groups of copies, with a keeper each  ->  plan  ->  quarantine, and back
find        a query  ->  views  ->  nearest in the index  ->  verified, with reasons  ->  found
"""

from simimg.search.building import IndexUpdate, index_dataset, index_folder
from simimg.search.duplicates import Duplicates, Group, Member, find_duplicates
from simimg.search.embeddings import SHIPPED_MODELS, Embedder, load_embedder
from simimg.search.find import Finder, Found, Query, load_query
from simimg.search.index import Match, Picture, SearchIndex
from simimg.search.plan import Applied, Plan, apply_plan, load_plan, undo_plan, write_plan
from simimg.search.projection import BY
from simimg.search.verify import Verification

__all__ = [
    "BY",
    "SHIPPED_MODELS",
    "Applied",
    "Duplicates",
    "Embedder",
    "Finder",
    "Found",
    "Group",
    "IndexUpdate",
    "Match",
    "Member",
    "Picture",
    "Plan",
    "Query",
    "SearchIndex",
    "Verification",
    "apply_plan",
    "find_duplicates",
    "index_dataset",
    "index_folder",
    "load_embedder",
    "load_plan",
    "load_query",
    "undo_plan",
    "write_plan",
]
