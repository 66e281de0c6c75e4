"""Embeddings of pictures, the pictures whose embeddings are close, and whether they are copies.

index_update      files or a data set  ->  embeddings, only of what is new  ->  index
duplicate_groups  an index  ->  groups of copies, with a keeper each  ->  plan  ->  quarantine, and back
split_leaks       an index of a data set  ->  copies across its splits  ->  a table with clean splits
index_export      an index  ->  a folder of vectors for other programs
query_search      a query  ->  views  ->  nearest in the index  ->  verified, with reasons  ->  found
"""

from simimg.similarity.clean_split_table import clean_command, write_clean_table
from simimg.similarity.copy_pairs import check_threshold
from simimg.similarity.duplicate_groups import Duplicates, Group, Member, find_duplicates
from simimg.similarity.embeddings import SHIPPED_MODELS, Embedder, load_embedder
from simimg.similarity.index_export import EXPORT_FORMATS, export_index
from simimg.similarity.index_images import IndexImages
from simimg.similarity.index_update import IndexUpdate, index_dataset, index_folder
from simimg.similarity.match_verification import Verification
from simimg.similarity.projection import BY
from simimg.similarity.query_search import Finder, Query, SearchResult, load_query
from simimg.similarity.removal_plan import Applied, Plan, apply_plan, load_plan, reference_of, undo_plan, write_plan
from simimg.similarity.search_index import IndexedImage, Match, SearchIndex
from simimg.similarity.split_leaks import DEALS, LeakedPair, Leaks, find_leaks

__all__ = [
    "BY",
    "DEALS",
    "EXPORT_FORMATS",
    "SHIPPED_MODELS",
    "Applied",
    "Duplicates",
    "Embedder",
    "Finder",
    "Group",
    "IndexImages",
    "IndexUpdate",
    "IndexedImage",
    "LeakedPair",
    "Leaks",
    "Match",
    "Member",
    "Plan",
    "Query",
    "SearchIndex",
    "SearchResult",
    "Verification",
    "apply_plan",
    "check_threshold",
    "clean_command",
    "export_index",
    "find_duplicates",
    "find_leaks",
    "index_dataset",
    "index_folder",
    "load_embedder",
    "load_plan",
    "load_query",
    "reference_of",
    "undo_plan",
    "write_clean_table",
    "write_plan",
]
