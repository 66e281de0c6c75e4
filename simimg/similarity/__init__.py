"""Embeddings of images, search for images with close embeddings, and verification of copies.

index_update      files or a dataset -> embeddings of what is new -> index
query_search      a query -> views -> nearest images of the index -> verified -> results with reasons
duplicate_groups  an index -> groups of copies with a keeper each
plan_file         groups -> plan.json; file_quarantine moves the files of a plan, and moves them back
split_leaks       an index of a dataset -> copies across its splits -> a table with clean splits
index_export      an index -> a folder of vectors for other programs
"""

from simimg.similarity.copy_pairs import check_threshold
from simimg.similarity.duplicate_groups import Duplicates, Group, Member, find_duplicates
from simimg.similarity.embeddings import SHIPPED_MODELS, Embedder, load_embedder
from simimg.similarity.file_quarantine import Applied, apply_plan, undo_plan
from simimg.similarity.image_table import IndexedImage
from simimg.similarity.index_export import EXPORT_FORMATS, export_index
from simimg.similarity.index_images import IndexImages
from simimg.similarity.index_update import IndexUpdate, index_dataset, index_folder
from simimg.similarity.match_verification import Verification
from simimg.similarity.plan_file import Plan, is_reference, load_plan, reference_dirs_of, write_plan
from simimg.similarity.projection import BY
from simimg.similarity.query_search import Finder, Query, SearchResult, load_query
from simimg.similarity.search_index import Match, SearchIndex
from simimg.similarity.split_leaks import DEALS, LeakedPair, Leaks, clean_command, find_leaks, write_clean_table

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
    "is_reference",
    "load_embedder",
    "load_plan",
    "load_query",
    "reference_dirs_of",
    "undo_plan",
    "write_clean_table",
    "write_plan",
]
