"""Blobs on a disk: append-only daily segments, a rebuildable index, one committing writer."""

from holdfast.rim.store.disk import DiskStore
from holdfast.rim.store.files import FaultyFiles, Files, OsFiles
from holdfast.rim.store.port import (
    BlobStore,
    DayItem,
    Entry,
    Incoming,
    StoreFigures,
    StorePolicy,
    WriteRefused,
)

__all__ = [
    "BlobStore",
    "DayItem",
    "DiskStore",
    "Entry",
    "FaultyFiles",
    "Files",
    "Incoming",
    "OsFiles",
    "StoreFigures",
    "StorePolicy",
    "WriteRefused",
]
