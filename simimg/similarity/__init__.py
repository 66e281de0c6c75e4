"""Embeddings of images, search for images with close embeddings, and verification of copies.

index_update      files or a dataset -> embeddings of what is new -> index
query_search      a query -> views -> nearest images of the index -> verified -> results with reasons
duplicate_groups  an index -> groups of copies with a keeper each
keeper_choice     the copies of a group -> the one to keep, and why
plan_file         groups -> plan.json; file_quarantine moves its files and their sidecars, and moves them back
split_leaks       an index of a dataset -> copies across its splits -> a table with clean splits
index_export      an index -> a folder of vectors for other programs

The modules are imported one by one, so that a search imports nothing that it does not need.
"""
