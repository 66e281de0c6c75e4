"""What there is to convert: folders, tables, archives and data sets, each as one list of files with labels."""

from tfrecords.convert.sources.image_folder import walk
from tfrecords.convert.sources.natural_sort import natural_key
from tfrecords.convert.sources.source import SUFFIXES, Files, Source, printable
from tfrecords.convert.sources.source_kinds import open_source

__all__ = ["SUFFIXES", "Files", "Source", "natural_key", "open_source", "printable", "walk"]
