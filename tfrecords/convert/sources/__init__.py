"""What there is to convert: folders, tables, archives and data sets, each as one list of files with labels."""

from tfrecords.convert.sources.choose import open_source
from tfrecords.convert.sources.folder import walk
from tfrecords.convert.sources.order import natural_key
from tfrecords.convert.sources.source import SUFFIXES, Files, Source, printable

__all__ = ["SUFFIXES", "Files", "Source", "natural_key", "open_source", "printable", "walk"]
