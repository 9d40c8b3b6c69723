"""Where the images and labels of an unknown folder are: which files make pairs, and which folders are which split.

Two groups of files (one folder, one ending) are images and labels when their names agree but for a beginning or end
(`x.jpg` and `x_mask.png`), and when neighbouring pixels are equal more often in one than in the other.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from fastseg.data import pairing
from fastseg.data.file_groups import Group, Looks
from fastseg.data.readers import IMAGE_SUFFIXES
from fastseg.errors import FastsegError

SEPARATORS = "_-. "
RARE = 0.1  # of the files of a folder and suffix: endings of fewer are no convention
FLAT = 0.5  # of the pixels equal their neighbour: no photograph
FLATTER = 0.1  # by how much more often neighbours are equal in labels than in images
CROWDED = 24  # groups that share one name, such as 0001 in every folder
SPLIT_WORDS = {"train": "train", "trn": "train", "val": "val", "dev": "val", "test": "test"}
_SPLIT = re.compile(
    r"(?:^|.*[_\-. ])(train|trn|val|dev|test)(?:ing|id|idation)?"
    r"(?=$|[^a-z]|annot|label|mask|image|img|gt|set|frame)"
)
# what is no label of classes, or less likely the one to train on
_UNLIKELY = (("inst", 2), ("object", 2), ("depth", 3), ("disp", 3), ("colo", 1), ("vis", 1), ("viz", 1), ("overlay", 3))


@dataclass(frozen=True)
class Layout:
    """`splits` in the words of the `folder` adapter, with their pairs, and what was seen besides."""

    splits: dict[str, dict[str, str]]
    pairs: dict[str, pairing.Pairs]
    notes: list[str] = field(default_factory=list)


def guess_layout(root: Path, files: Sequence[str]) -> Layout:
    """The splits among `files`, which are paths from `root`; none where no pairs are found."""
    groups = _groups([name for name in files if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES])
    chosen, notes = _choose(root, groups)
    by_split: dict[str, list[tuple[Group, Group, int]]] = defaultdict(list)
    for pair in chosen:
        by_split[_split_of(pair[0].folder) or ""].append(pair)
    splits: dict[str, dict[str, str]] = {}
    pairs: dict[str, pairing.Pairs] = {}
    for split, members in by_split.items():
        found = sorted(
            _described(root, members), key=lambda each: (-len(each[1].samples), _alone(each[1]), len(str(each[0])))
        )
        if not found:
            images, labels, count = members[0]
            notes.append(
                f"not used: {count} pairs of {images.folder} and {labels.folder}, which no pattern describes; where a "
                "folder has * in its name, which stands for any text, rename it"
            )
            continue
        splits[split], pairs[split] = found[0]
        taken = {sample.image for sample in pairs[split].samples.values()}
        for entry, others in found[1:]:
            if not taken & {sample.image for sample in others.samples.values()}:
                notes.append(f"not used: {len(others.samples)} more pairs of {entry['images']} and {entry['labels']}")
    layout = Layout(splits, pairs, notes)
    return _named(_with_lists(root, files, layout) if list(splits) == [""] else layout)


def _groups(files: Iterable[str]) -> dict[Group, dict[str, str]]:
    """Groups of files by what their names have in common: core of the name -> file."""
    by_folder: dict[tuple[str, str], list[str]] = defaultdict(list)
    stems: dict[str, set[str]] = defaultdict(set)
    for name in files:
        path = PurePosixPath(name)
        by_folder[str(path.parent), path.suffix].append(path.stem)
        stems[str(path.parent)].add(path.stem)
    groups: dict[Group, dict[str, str]] = {}
    for (folder, suffix), names in by_folder.items():
        fewest = max(2, RARE * len(names)) if len(names) > 3 else 1
        tails, heads = Counter(t for n in names for t in _tails(n)), Counter(h for n in names for h in _heads(n))
        affixes = [("", tail) for tail, count in tails.items() if count >= fewest]
        affixes += [(head, "") for head, count in heads.items() if count >= fewest]
        decorated = set()
        for head, tail in affixes:
            cores = {
                name[len(head) : len(name) - len(tail)]: name
                for name in names
                if name.startswith(head) and name.endswith(tail) and len(name) > len(head) + len(tail)
            }
            decorated |= {name for core, name in cores.items() if core in stems[folder]}
            place = "" if folder == "." else f"{folder}/"
            groups[Group(folder, head, tail, suffix)] = {c: f"{place}{n}{suffix}" for c, n in cores.items()}
        # beside x.png, x_mask.png is no picture of its own
        place = "" if folder == "." else f"{folder}/"
        plain = {name: f"{place}{name}{suffix}" for name in names if name not in decorated}
        if plain:
            groups[Group(folder, "", "", suffix)] = plain
    return groups


def _tails(name: str) -> list[str]:
    places = [place for place, character in enumerate(name) if character in SEPARATORS and place]
    return [name[place:] for place in places[-3:]]


def _heads(name: str) -> list[str]:
    places = [place for place, character in enumerate(name) if character in SEPARATORS and place]
    return [name[: place + 1] for place in places[:2]]


def _choose(root: Path, groups: dict[Group, dict[str, str]]) -> tuple[list[tuple[Group, Group, int]], list[str]]:
    """For every folder of images its best labels: (images, labels, number of pairs); and notes on the other labels."""
    by_core: dict[str, list[Group]] = defaultdict(list)
    for group, cores in groups.items():
        for core in cores:
            by_core[core].append(group)
    shared: Counter[tuple[Group, Group]] = Counter()
    for core, members in by_core.items():
        for images, labels in _partners(members):
            if groups[images][core] != groups[labels][core] and _same_split(images.folder, labels.folder):
                shared[images, labels] += 1
    looks = Looks(root, groups)
    fitting = [pair for pair in shared if looks.flatness(pair[1]) > looks.flatness(pair[0]) + FLATTER]
    flat = {labels for _, labels in fitting if looks.flatness(labels) > FLAT}
    label_files = {file for group in flat for file in groups[group].values()}  # which are no images of other labels
    ranked: dict[tuple[str, str], list[tuple[tuple[float, ...], Group, Group, int]]] = defaultdict(list)
    for images, labels in fitting:
        count = shared[images, labels]
        rank = float(labels in flat), *_rank(images, labels, count, len(groups[images]), looks.numbered(labels))
        slot = images.folder, images.suffix
        if label_files.isdisjoint(groups[images].values()):
            ranked[slot].append((rank, images, labels, count))
    chosen, others = [], Counter[str]()
    for candidates in ranked.values():
        candidates.sort(key=lambda each: each[0], reverse=True)  # the first among equals stays first
        _, images, labels, count = candidates[0]
        chosen.append((images, labels, count))
        taken = set(groups[labels].values())
        for _, images, other, count in candidates[1:]:
            if other in flat and taken.isdisjoint(groups[other].values()):
                taken |= set(groups[other].values())
                between = "/".join(_difference(images.folder, other.folder)[2])
                others[f"{between}{'/' if between else ''}{other.head}*{other.tail}{other.suffix}"] += count
    notes = [f"not used: {count} other label files for the same images: {text}" for text, count in others.items()]
    return chosen, notes


def _partners(members: Sequence[Group]) -> Iterable[tuple[Group, Group]]:
    """Groups that may be images and labels: any two, or among many only those whose folders differ in one component."""
    if len(members) <= CROWDED:
        return itertools.permutations(members, 2)
    near: dict[tuple[str, ...], list[Group]] = defaultdict(list)
    for group in members:
        parts = PurePosixPath(group.folder).parts
        for place in range(len(parts)):
            without = (*parts[:place], "*", *parts[place + 1 :])
            near[without].append(group)
    few = (each for each in near.values() if len(each) <= CROWDED)
    return dict.fromkeys(pair for each in few for pair in itertools.permutations(each, 2))


def _rank(images: Group, labels: Group, count: int, total: int, numbered: bool) -> tuple[float, ...]:
    unlikely = sum(weight for word, weight in _UNLIKELY if word in f"{labels.folder}/{labels.tail}".lower())
    affixes = sum(len(text) for group in (images, labels) for text in (group.head, group.tail))
    _, between_images, between_labels, _ = _difference(images.folder, labels.folder)
    return round(count / total, 1), -unlikely, numbered, -(len(between_images) + len(between_labels)), -affixes, count


def _described(root: Path, members: list[tuple[Group, Group, int]]) -> Iterator[tuple[dict[str, str], pairing.Pairs]]:
    """Patterns for the pairs of groups of one split, and what they find; several where folders differ in kind."""
    alike: dict[tuple[object, ...], list[tuple[Group, Group]]] = defaultdict(list)
    for images, labels, _ in members:
        _, between_images, between_labels, _ = _difference(images.folder, labels.folder)
        alike[between_images, between_labels, images.head, images.tail, labels.head, labels.tail].append(
            (images, labels)
        )
    for group in alike.values():
        parts = [_difference(images.folder, labels.folder) for images, labels in group]
        befores, afters = {part[0] for part in parts}, {part[3] for part in parts}
        plain, patterns = {}, {}
        for key, side in (("images", 0), ("labels", 1)):
            folder = _folder_text(befores, parts[0][1 + side], afters)
            suffixes = {pair[side].suffix for pair in group}
            suffix = suffixes.pop() if len(suffixes) == 1 else ""
            plain[key] = folder.removesuffix("**/").rstrip("/")
            patterns[key] = f"{folder}{group[0][side].head}*{group[0][side].tail}{suffix}"
        found = []
        for entry in (plain, patterns) if all(plain.values()) else (patterns,):
            try:
                pairs = pairing.find_pairs(root, entry["images"], entry["labels"])
            except FastsegError:
                continue
            if pairs.samples:
                found.append((entry, pairs))
        if found:  # the plain folders where they find the same
            yield max(found, key=lambda each: (len(each[1].samples), -_alone(each[1])))


def _folder_text(befores: set[tuple[str, ...]], between: tuple[str, ...], afters: set[tuple[str, ...]]) -> str:
    """A pattern for the folders `before/between/after`, ending in '/' where it is not empty."""
    start, end = _common(list(befores)), _common(list(afters))
    parts = [*start, *(["**"] if len(befores) > 1 else []), *between, *end, *(["**"] if len(afters) > 1 else [])]
    return "".join(f"{part}/" for part in parts)


def _difference(images: str, labels: str) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Two folders as what they begin with, where they differ, and what they end with."""
    a, b = (() if folder == "." else PurePosixPath(folder).parts for folder in (images, labels))
    before = _common([a, b])
    a, b = a[len(before) :], b[len(before) :]
    after = tuple(reversed(_common([a[::-1], b[::-1]])))
    return before, a[: len(a) - len(after)], b[: len(b) - len(after)], after


def _common(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    shared = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*paths, strict=False))
    return tuple(column[0] for column in shared)


@functools.cache
def _split_of(folder: str) -> str | None:
    """'train', 'val' or 'test', where a component of the path says so."""
    for part in PurePosixPath(folder).parts:
        match = _SPLIT.match(part.lower())
        if match:
            return SPLIT_WORDS[match[1]]
    return None


def _same_split(images: str, labels: str) -> bool:
    one, other = _split_of(images), _split_of(labels)
    return one == other or None in (one, other)


def _alone(pairs: pairing.Pairs) -> int:
    return len(pairs.images_alone) + len(pairs.labels_alone)


def _with_lists(root: Path, files: Sequence[str], layout: Layout) -> Layout:
    """The one split divided by lists called train.txt, val.txt and test.txt, where every row of theirs is a pair."""
    entry, pairs = layout.splits[""], layout.pairs[""]
    splits: dict[str, dict[str, str]] = {}
    found: dict[str, pairing.Pairs] = {}
    for name in sorted(files, key=lambda name: (name.count("/"), name)):
        path = PurePosixPath(name)
        split = path.stem.lower()
        if path.suffix.lower() != ".txt" or split not in SPLIT_WORDS.values() or split in splits:
            continue
        try:
            samples = dict(pairing.listed(root / name, pairs.samples))
        except FastsegError:
            continue
        splits[split], found[split] = {**entry, "list": name}, pairing.Pairs(samples, [], [])
    return Layout(splits, found, layout.notes) if "train" in splits else layout


def _named(layout: Layout) -> Layout:
    """A split for training: where no folder is called so, the files outside all splits, or else the largest split."""
    splits, pairs = dict(layout.splits), dict(layout.pairs)
    notes = list(layout.notes)
    if splits and "train" not in splits:
        source = "" if "" in splits else max(pairs, key=lambda name: len(pairs[name].samples))
        splits["train"], pairs["train"] = splits.pop(source), pairs.pop(source)
    elif "" in splits:
        left, found = splits.pop(""), pairs.pop("")
        notes.append(f"not used: {len(found.samples)} more pairs of {left['images']} and {left['labels']}")
    order = [name for name in ("train", "val", "test") if name in splits]
    return Layout({name: splits[name] for name in order}, {name: pairs[name] for name in order}, notes)
