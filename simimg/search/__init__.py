"""Embeddings of pictures, and the pictures whose embeddings are close."""

from simimg.search.embeddings import SHIPPED_MODELS, Embedder, load_embedder
from simimg.search.index import Match, Picture, SearchIndex, write_index
from simimg.search.pictures import EmbeddedFiles, FileFacts, embed_files

__all__ = [
    "SHIPPED_MODELS",
    "EmbeddedFiles",
    "Embedder",
    "FileFacts",
    "Match",
    "Picture",
    "SearchIndex",
    "embed_files",
    "load_embedder",
    "write_index",
]
