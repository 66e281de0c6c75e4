"""Embeddings of pictures, the pictures whose embeddings are close, and whether they are copies.

building    files or a data set  ->  embeddings, only of what is new  ->  index
duplicates  an index  ->  groups of copies, with a keeper each  ->  plan  ->  quarantine, and back
leaks       an index of a data set  ->  copies across its splits  ->  a table with clean splits
exporting   an index  ->  a folder of vectors for other programs
find        a query  ->  views  ->  nearest in the index  ->  verified, with reasons  ->  found
"""

from simimg.similarity.building import IndexUpdate, index_dataset, index_folder
from simimg.similarity.cleaning import clean_command, write_clean_table
from simimg.similarity.duplicates import Duplicates, Group, Member, find_duplicates
from simimg.similarity.embeddings import SHIPPED_MODELS, Embedder, load_embedder
from simimg.similarity.exporting import EXPORT_FORMATS, export_index
from simimg.similarity.find import Finder, Found, Query, load_query
from simimg.similarity.index import Match, Picture, SearchIndex
from simimg.similarity.leaks import DEALS, LeakedPair, Leaks, find_leaks
from simimg.similarity.originals import Originals
from simimg.similarity.pairs import check_threshold
from simimg.similarity.plan import Applied, Plan, apply_plan, load_plan, reference_of, undo_plan, write_plan
from simimg.similarity.projection import BY
from simimg.similarity.verify import Verification

__all__ = [
    "BY",
    "DEALS",
    "EXPORT_FORMATS",
    "SHIPPED_MODELS",
    "Applied",
    "Duplicates",
    "Embedder",
    "Finder",
    "Found",
    "Group",
    "IndexUpdate",
    "LeakedPair",
    "Leaks",
    "Match",
    "Member",
    "Originals",
    "Picture",
    "Plan",
    "Query",
    "SearchIndex",
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
