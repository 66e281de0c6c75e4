"""Folders that are splits, recognized by their names: around the class folders, or in each of them.

    train/cat/1.jpg  test/cat/2.jpg     two splits of the class cat
    cat/train/1.jpg  cat/test/2.jpg     the same
    photos/train/cat/1.jpg              the same; folders around everything do not matter
    train/train/cat/1.jpg               the same; some archives have each split folder twice
    seg_train/cat/1.jpg  seg_test/…     the same; words that all folders share do not matter

A folder counts as a split if all folders beside it have such names, too, and at least one of them has class folders. So
a class may be named test. A folder with none beside it counts as a split if it has nothing but several folders. The
splits have the names that the other commands know: train, validation, test.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

_SPLITS = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "development"), "validation"),
    **dict.fromkeys(("test", "testing", "tst", "holdout"), "test"),
    **dict.fromkeys(("eval", "evaluation"), "eval"),
}
_FILLERS = frozenset("data dataset folder image images imgs set split".split())


@dataclasses.dataclass(frozen=True)
class FolderLayout:
    """Where the class and the split of a file stand in its path.

    Attributes:
        prefix: the folders around everything, with their slashes.
        splits: the split of each split folder, by its name.
        is_outer: whether the split folders are around the class folders, or else in them.
        is_doubled: whether each split folder has only one folder, which is named as itself, around the class folders.
    """

    prefix: str
    splits: Mapping[str, str]
    is_outer: bool = True
    is_doubled: bool = False

    def place(self, path: str) -> tuple[str, str] | None:
        """Return the class folder and the split of a file, or None if it lies beside the class folders."""
        if not path.startswith(self.prefix):
            return None
        outer, _, rest = path[len(self.prefix) :].partition("/")
        if self.is_doubled:
            rest = rest.partition("/")[2]
        inner, slash, _ = rest.partition("/")
        if not slash:
            return None
        split, folder = (outer, inner) if self.is_outer else (inner, outer)
        return (folder, self.splits[split]) if split in self.splits else None

    def notes(self, images: Iterable[str]) -> list[str]:
        """Return notes about images without a class, and about splits that have no class in common."""
        beside: list[str] = []
        below: set[str] = set()  # of the split folders, if they are in the class folders
        splits_of: dict[str, set[str]] = defaultdict(set)
        for path in images:
            if (place := self.place(path)) is None:
                beside.append(path)
            else:
                splits_of[place[0]].add(place[1])
                parts = path[len(self.prefix) :].split("/", 3)
                if not self.is_outer and len(parts) > 3:
                    below.add(parts[2])
        notes = []
        if below:
            notes.append(f"folders in the split folders are not classes: {', '.join(sorted(below)[:10])}")
        if beside:
            notes.append(f"{len(beside):,} images lie in no class folder, e.g. {beside[0]}: they have no label")
        num_splits = len({split for splits in splits_of.values() for split in splits})
        if num_splits > 1 and max(map(len, splits_of.values())) == 1:
            notes.append(
                f"the splits {self.folders} have no class in common; if they are classes, name them: "
                f"--categories={','.join(self.splits)}"
            )
        return notes

    @property
    def folders(self) -> str:
        """The split folders as text, with the names of their splits where these differ."""
        return ", ".join(
            folder if folder == split else f"{folder} (as {split})" for folder, split in self.splits.items()
        )


def find_layout(
    tops: Sequence[str], images: Callable[[], Iterable[str]], first_images: Iterable[str]
) -> FolderLayout | None:
    """Return the layout of a source that has split folders, or None.

    Args:
        tops: the top folders that have images.
        images: returns the paths of all images in them; called only if there may be split folders.
        first_images: the path of an image of each top folder.
    """
    may_be = (
        len(tops) == 1
        or all(splits_of(tops).values())
        or all(len(parts := path.split("/", 2)) == 3 and split_of(parts[1]) for path in first_images)
    )
    return _find("", list(images())) if may_be and tops else None


def layout_of(images: Sequence[str]) -> FolderLayout | None:
    """Return the layout of the images of a source, by their paths, or None if it has no split folders."""
    first: dict[str, str] = {}
    for path in images:
        top, slash, _ = path.partition("/")
        if slash:
            first.setdefault(top, path)
    return find_layout(list(first), lambda: (path for path in images if "/" in path), first.values())


def note_on_splits(tops: Sequence[str], images: Callable[[], Iterable[str]]) -> list[str]:
    """Return a note if some top folders have the names of splits and were nevertheless taken as classes."""
    names = splits_of(tops)
    splits = [top for top in tops if names[top]]
    others = [top for top in tops if not names[top]]
    if len(splits) < 2:
        return []
    inside: dict[str, set[str]] = defaultdict(set)
    for path in images():
        top, _, rest = path.partition("/")
        if top in splits and "/" in rest:
            rest = rest.removeprefix(f"{top}/") if rest.count("/") > 1 else rest
            inside[top].add(rest.partition("/")[0])
    shared = Counter(folder for folders in inside.values() for folder in folders)
    if others and shared and max(shared.values()) > 1:
        return [
            f"{' and '.join(splits)} may be splits, but {others[0]} is none, so all of them are classes; leave it out "
            f"with --exclude={others[0]}/ to use the folders inside as classes"
        ]
    if not others and not inside:
        return [
            f"{' and '.join(splits)} are taken as classes, since their images lie in no class folders; for splits, put "
            "the images of each class into a folder there"
        ]
    return []


def split_of(folder: str) -> str:
    """Return the split that a folder's name stands for, such as Train, training_set or val2017; "" for none."""
    words = [word for word in re.split(r"[\W_]+", re.sub(r"[0-9]{4}$", "", folder.lower())) if word]
    names = [word for word in words if word not in _FILLERS]
    return _SPLITS.get(names[0], "") if len(names) == 1 else ""


def splits_of(folders: Iterable[str]) -> dict[str, str]:
    """Return the split of each of some folders that lie side by side, see `split_of`; words that all of them share,
    such as `seg` in seg_train and seg_test, do not matter.
    """
    found = {folder: split_of(folder) for folder in folders}
    if all(found.values()) or len(found) < 2:
        return found
    words = [re.findall(r"[^\W_]+", folder) for folder in found]
    most = min(map(len, words)) - 1
    first = next((at for at in range(most) if len({several[at] for several in words}) > 1), max(most, 0))
    most -= first
    last = next((at for at in range(most) if len({several[-1 - at] for several in words}) > 1), max(most, 0))
    bare = (split_of("_".join(several[first : len(several) - last])) for several in words)
    without = dict(zip(found, bare, strict=True))
    return without if sum(map(bool, without.values())) > sum(map(bool, found.values())) else found


def named_splits(folders: Iterable[str]) -> dict[str, str]:
    """Return the name of the split of each folder, in the order of training, validation and test.

    `eval` is the test split, or the validation split if there is a folder of test images. Folders of two names for one
    split (val and dev) keep their names.
    """
    splits = splits_of(folders)
    taken = set(splits.values())
    for_eval = next((name for name in ("test", "validation") if name not in taken), "eval")
    splits = {folder: for_eval if split == "eval" else split for folder, split in splits.items()}
    spellings = defaultdict(set)
    for folder, split in splits.items():
        spellings[split].add(folder.lower())
    order = ("train", "validation", "test", "eval")
    return {
        folder: split if len(spellings[split]) == 1 else re.sub(r"\W", "_", folder.lower(), flags=re.ASCII)
        for folder, split in sorted(splits.items(), key=lambda item: (order.index(item[1]), item[0]))
    }


def _find(prefix: str, images: list[str]) -> FolderLayout | None:
    """Look below `prefix`, which all images are in."""
    inside: dict[str, Counter[str]] = defaultdict(Counter)  # of each top folder, the next folders; "" for images in it
    for path in images:
        top, slash, rest = path[len(prefix) :].partition("/")
        if not slash:
            return None
        inner, slash, _ = rest.partition("/")
        inside[top][inner if slash else ""] += 1
    is_nested = any(set(folders) - {""} for folders in inside.values())
    are_splits = all(splits_of(inside).values())
    if are_splits and all(list(folders) == [top] for top, folders in inside.items()):
        if len(inside) == 1:
            return _find(f"{prefix}{next(iter(inside))}/", images)
        if all(path[len(prefix) :].count("/") > 2 for path in images):
            return FolderLayout(prefix, named_splits(inside), is_doubled=True)
    if is_nested and are_splits:
        several = len(inside) > 1 or all("" not in folders and len(folders) > 1 for folders in inside.values())
        return FolderLayout(prefix, named_splits(inside)) if several else None
    second = {folder for folders in inside.values() for folder in folders}
    is_inner = all(splits_of(second).values()) and len(set(named_splits(second).values())) > 1
    if is_inner and (len(inside) > 1 or all(path[len(prefix) :].count("/") == 2 for path in images)):
        return FolderLayout(prefix, named_splits(second), is_outer=False)
    return _find(f"{prefix}{next(iter(inside))}/", images) if len(inside) == 1 else None
