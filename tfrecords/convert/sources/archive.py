"""Tars and zips, one or many: with class folders inside, or with samples in WebDataset's form.

A tar has WebDataset's form if one of its images has a file of the same name beside it that ends in .cls, .json or .txt;
see `tfrecords.convert.sources.webdataset`. Otherwise the folders inside are the classes.
"""

from __future__ import annotations

import array
import glob
import os
import re
from collections.abc import Sequence

from tfrecords.base_errors import UsageError
from tfrecords.convert.sources.class_folders import source_of_folders
from tfrecords.convert.sources.container_files import Containers
from tfrecords.convert.sources.labels import FileListing
from tfrecords.convert.sources.name_encodings import decode_names
from tfrecords.convert.sources.natural_sort import natural_order
from tfrecords.convert.sources.remote import check_url, glob_urls, is_url
from tfrecords.convert.sources.selection import Selection
from tfrecords.convert.sources.source import Files, Source, is_image
from tfrecords.convert.sources.tar import tar_members
from tfrecords.convert.sources.webdataset import Samples
from tfrecords.convert.sources.zip import ZipFiles, zip_members

_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")
_MAX_ARCHIVES = 100_000
_BRACES = re.compile(r"\{([^{}]*)\}")


def is_archive(path: str) -> bool:
    """Return whether a path, a pattern or a URL ends like that of a tar or a zip."""
    return path.lower().endswith((".tar", ".zip", *_COMPRESSED))


def find_archives(image_dir: str) -> list[str]:
    """Return the archives of a path, a URL, a pattern (`*.tar`) or braces (`{000..003}.tar`).

    Raises UsageError if there are none, or too many.
    """
    if is_url(image_dir):
        check_url(image_dir)
    elif os.path.exists(image_dir):
        return [image_dir]
    found = []
    for name in expand_braces(image_dir):
        if not re.search(r"[*?\[]", name):
            found.append(name)
        else:
            names = glob_urls(name) if is_url(name) else glob.glob(name)
            found += [names[at] for at in natural_order(names)]
    if not found:
        raise UsageError(f"--image_dir={image_dir}: no file matches. Check the name, and quote it for the shell.")
    return found


def expand_braces(text: str) -> list[str]:
    """Return all texts that result from replacing each `{a,b}` and `{000..003}` in `text`, as a shell does.

    The package braceexpand also expands `{a..b}`, has no limit, and would change the names that datasets are made
    from. Raises UsageError if there are more than a hundred thousand.
    """
    results = [""]
    rest = 0
    for match in _BRACES.finditer(text):
        before, rest = text[rest : match.start()], match.end()
        choices = _choices(match[1]) or [match[0]]
        if len(results) * len(choices) > _MAX_ARCHIVES:
            raise UsageError(f"--image_dir={text} means more than {_MAX_ARCHIVES} files. Name fewer.")
        results = [result + before + choice for result in results for choice in choices]
    return [result + text[rest:] for result in results]


def open_archives(
    image_dir: str, categories: Sequence[str] = (), selection: Selection | None = None, encoding: str = ""
) -> Source:
    """Find the image files in tars or zips; `image_dir` is as in `find_archives`, the others are as in `open_source`.

    Raises:
        UsageError: there is no such archive, one is damaged or of another kind, or there is no image file.
    """
    selection = selection or Selection()
    archives = find_archives(image_dir)
    kinds = {os.path.splitext(path)[1].lower() for path in archives}
    packed = [path for path in archives if path.lower().endswith(_COMPRESSED)]
    if packed:
        raise UsageError(
            f"{packed[0]} is compressed as a whole, so its members cannot be read one by one. Uncompress it first."
        )
    if len(kinds) > 1 or not kinds <= {".tar", ".zip"}:
        raise UsageError(
            f"--image_dir={image_dir} should be tars only or zips only. Received: {' '.join(sorted(kinds))}"
        )
    containers = Containers.of(archives)
    members = FileListing()
    declared = array.array("q")  # members whose names are UTF-8 according to their archive
    samples = Samples(_short_names(archives)) if kinds == {".tar"} else None
    shifts = []
    for number, archive in enumerate(containers.paths):
        size, stamp = containers.sizes[number], containers.stamps[number]
        with containers.scanned(number) as read_at:
            if samples:
                found = tar_members(read_at, size, archive)
            else:
                shift, found = zip_members(read_at, size, archive)
                shifts.append(shift)
            for member in found:
                path = _clean(member.name, selection)
                if path:
                    place = (number, member.offset, member.length)
                    if member.is_utf8 and not path.isascii():
                        declared.append(len(members.paths))
                    members.add(path, member.size, stamp, place, refused=member.refused)
                    if samples:
                        samples.add(path, member, read_at)
        if samples:
            samples.end_of_tar(number, stamp)
    if samples and samples.any_label:
        return samples.source(image_dir, containers, categories, containers.paths, selection, encoding)
    files = containers if samples else ZipFiles(containers, tuple(shifts))
    del samples
    notes = decode_names(members.paths, encoding, image_dir, declared)
    return _class_folders(image_dir, members, files, containers, categories, selection, notes)


def _class_folders(
    image_dir: str,
    members: FileListing,
    files: Files,
    containers: Containers,
    categories: Sequence[str],
    selection: Selection,
    notes: list[str],
) -> Source:
    notes = [*notes, *_drop_earlier_ones(members, containers.paths)]
    top = _single_top(members.paths, categories)
    if top:
        selection.top = top
        members.paths = [path[len(top) :] if path.startswith(top) else f"../{path}" for path in members.paths]
    first = containers.paths[0]
    stem, suffix = os.path.splitext(os.path.basename(first))
    number = len(containers.paths)
    return source_of_folders(
        members,
        location=image_dir,
        files=files,
        name=stem,
        categories=categories,
        selection=selection,
        notes=notes,
        kind=f"{number:,} {suffix[1:].lower()} files" if number > 1 else f"{suffix[1:].lower()} file",
    )


def _drop_earlier_ones(members: FileListing, archives: Sequence[str]) -> list[str]:
    """Keep only the last of several members with the same name in one archive, as unpacking would."""
    if len(set(members.paths)) == len(members.paths):
        return []
    last: dict[str, int] = {}
    for row, path in enumerate(members.paths):
        if path in last:
            a, b = members.places[3 * last[path]], members.places[3 * row]
            if a != b:
                raise UsageError(f"{archives[a]} and {archives[b]} both have a file {path!r}. Rename one.")
            members.replaced.add(last[path])
        last[path] = row
    return [f"{len(members.replaced)} files are in an archive twice with the same name; the later one was used"]


def _single_top(paths: Sequence[str], categories: Sequence[str]) -> str:
    """Return the folders, with their slashes, that contain all images and below which there are still folders."""
    images = [path for path in paths if is_image(path)]
    top = ""
    while True:
        rests = [path[len(top) :].partition("/") for path in images]
        names = {name if slash else "" for name, slash, _ in rests}
        if len(names) != 1 or "" in names or names & set(categories) or not any("/" in rest for *_, rest in rests):
            return top
        top += f"{names.pop()}/"


def _clean(name: str, selection: Selection) -> str:
    """Return a member's name as a path, or "" if it is hidden or made by a system."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return "" if any(part != ".." and selection.skips(part) for part in parts) else "/".join(parts)


def _choices(inner: str) -> list[str]:
    numbers = re.fullmatch(r"([0-9]{1,18})\.\.([0-9]{1,18})", inner)
    if numbers:
        first, last = int(numbers[1]), int(numbers[2])
        width = max(map(len, numbers.groups())) if "0" in (numbers[1][0], numbers[2][0]) else 0
        step = 1 if first <= last else -1
        if abs(last - first) >= _MAX_ARCHIVES:
            raise UsageError(f"--image_dir: {{{inner}}} means more than {_MAX_ARCHIVES} files. Name fewer.")
        return [f"{number:0{width}d}" for number in range(first, last + step, step)]
    return inner.split(",") if "," in inner else []


def _short_names(archives: Sequence[str]) -> list[str]:
    """Return the part of each archive's path in which the paths differ, with "/" as the separator; "" for only one."""
    if len(archives) == 1:
        return [""]
    folders = {path.rpartition("/")[0] for path in archives}
    if len(folders) == 1:
        return [path.rpartition("/")[2] for path in archives]
    common = os.path.commonpath(sorted(folders)).rstrip("/")
    return [path[len(common) :].lstrip("/") for path in archives]
