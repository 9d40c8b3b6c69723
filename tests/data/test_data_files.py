"""Members of zip archives: the right bytes from threads and forked processes, and what is said of broken archives."""

from __future__ import annotations

import multiprocessing
import os
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from torch.utils.data import DataLoader, Dataset

from fastseg.data import files
from fastseg.data.files import ArchiveMember, file_identity, open_archive, stem
from fastseg.errors import FastsegError, ImageReadError, MissingFileError

COUNT = 40


def content(number: int) -> bytes:
    """Bytes that tell the member, of a length that needs several reads of the archive."""
    return b"%06d " % number * (2000 + 500 * number)


def write_archive(path: Path, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for number in range(COUNT):
            archive.writestr(f"city/{number}.png", content(number))
    return path


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write_archive(tmp_path / "images.zip")


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """An archive whose members stand in it as they are, to be found and changed there."""
    return write_archive(tmp_path / "stored.zip", zipfile.ZIP_STORED)


def replace(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))


class Members(Dataset[bool]):
    """Whether each member gives its own bytes."""

    def __init__(self, archive: Path) -> None:
        self.archive = archive

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> bool:
        return ArchiveMember(self.archive, f"city/{index}.png").read_bytes() == content(index)


def test_a_member_is_read_whole_and_knows_its_names(archive: Path) -> None:
    member = ArchiveMember(archive, "city/3.png")
    assert member.read_bytes() == content(3)
    assert (member.name, stem(member), str(member)) == ("3.png", "3", f"{archive}!city/3.png")


def test_an_archive_is_opened_once(archive: Path) -> None:
    assert open_archive(archive) is open_archive(archive)


def test_an_archive_that_was_replaced_is_read_anew(archive: Path) -> None:
    member = ArchiveMember(archive, "city/3.png")
    member.read_bytes()
    with zipfile.ZipFile(archive, "w") as rewritten:
        rewritten.writestr("other", "x")
        rewritten.writestr("city/3.png", "new")
    assert member.read_bytes() == b"new"


def test_four_threads_read_the_right_bytes_from_one_archive(archive: Path) -> None:
    members = Members(archive)
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(members.__getitem__, list(range(COUNT)) * 5))


def test_two_forked_workers_read_the_right_bytes_from_an_archive_that_is_open_already(archive: Path) -> None:
    members = Members(archive)
    assert members[0]
    loader = DataLoader(members, batch_size=None, num_workers=2, multiprocessing_context="fork")
    assert [bool(right) for right in loader] == [True] * COUNT


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_forked_while_a_thread_opens_an_archive_does_not_wait_for_it(archive: Path) -> None:
    inside, leave = threading.Event(), threading.Event()

    def hold_the_lock() -> None:
        with files._lock:
            inside.set()
            leave.wait(60)

    thread = threading.Thread(target=hold_the_lock)
    thread.start()
    assert inside.wait(10)
    process = multiprocessing.get_context("fork").Process(target=ArchiveMember(archive, "city/1.png").read_bytes)
    process.start()
    process.join(20)
    waits = process.is_alive()
    process.kill()
    leave.set()
    thread.join()
    assert not waits
    assert process.exitcode == 0


def test_a_missing_archive_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"gone\.zip does not exist"):
        ArchiveMember(tmp_path / "gone.zip", "a.png").read_bytes()


def test_a_missing_member_is_named_with_its_archive(archive: Path) -> None:
    with pytest.raises(MissingFileError, match=r"images\.zip!city/99\.png does not exist: the archive has no such"):
        ArchiveMember(archive, "city/99.png").read_bytes()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_an_archive_that_is_not_whole_says_so_with_its_size(archive: Path, share: float) -> None:
    data = archive.read_bytes()
    archive.write_bytes(data[: int(share * len(data))])
    with pytest.raises(
        ImageReadError, match=rf"images\.zip \({int(share * len(data))} bytes\) is no zip .*download to fi"
    ):
        ArchiveMember(archive, "city/1.png").read_bytes()


def test_a_folder_called_like_an_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zip").mkdir()
    with pytest.raises(ImageReadError, match=r"a\.zip is no zip archive"):
        open_archive(tmp_path / "a.zip")


def test_a_changed_byte_inside_a_member_is_noticed(stored: Path) -> None:
    replace(stored, b"000007 000007 ", b"000007 000008 ")
    with pytest.raises(ImageReadError, match=r"stored\.zip!city/7\.png is damaged: Bad CRC.*fetch the archive again"):
        ArchiveMember(stored, "city/7.png").read_bytes()


def test_an_encrypted_member_is_refused(archive: Path) -> None:
    data = bytearray(archive.read_bytes())
    entry = data.rindex(b"PK\x01\x02")  # the last of the directory, whose flags stand 8 bytes on
    data[entry + 8] |= files.ENCRYPTED
    archive.write_bytes(data)
    with pytest.raises(ImageReadError, match=rf"images\.zip!city/{COUNT - 1}\.png is encrypted; unpack"):
        ArchiveMember(archive, f"city/{COUNT - 1}.png").read_bytes()


def test_a_compression_that_python_does_not_know_is_refused(archive: Path) -> None:
    data = bytearray(archive.read_bytes())
    entry = data.rindex(b"PK\x01\x02")
    data[entry + 10] = 9  # Deflate64
    archive.write_bytes(data)
    with pytest.raises(ImageReadError, match=r"city/39\.png cannot be unpacked here: .*; unpack it elsewhere"):
        ArchiveMember(archive, f"city/{COUNT - 1}.png").read_bytes()


def test_a_member_that_unpacks_to_too_much_is_refused(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LARGEST_MEMBER", 1000)
    with pytest.raises(ImageReadError, match=r"city/1\.png unpacks to more than 1000 bytes; refused"):
        ArchiveMember(archive, "city/1.png").read_bytes()


@pytest.mark.parametrize("position", range(0, 100, 7))
def test_any_byte_changed_in_the_directory_is_an_error_or_leaves_the_member_whole(archive: Path, position: int) -> None:
    data = bytearray(archive.read_bytes())
    data[data.index(b"PK\x01\x02") + position] ^= 0xFF
    archive.write_bytes(data)
    try:
        read = ArchiveMember(archive, "city/0.png").read_bytes()
    except FastsegError as error:
        assert str(archive) in str(error)  # noqa: PT017, either outcome is right, other bytes are not
    else:
        assert read == content(0)


def test_the_identity_of_a_member_changes_with_its_content_and_its_archive(archive: Path, stored: Path) -> None:
    member = ArchiveMember(stored, "city/1.png")
    first = file_identity(member)
    assert first == file_identity(ArchiveMember(stored, "city/1.png"))
    assert len({first, file_identity(ArchiveMember(stored, "city/2.png")), file_identity(stored)}) == 3
    assert file_identity(ArchiveMember(archive, "city/1.png")) != first
    os.utime(stored, ns=(0, 0))
    assert file_identity(member) != first


def test_the_identity_of_a_member_tells_its_name_and_content_where_sizes_and_times_are_equal(tmp_path: Path) -> None:
    identities = []
    for text in (b"one", b"two"):
        path = tmp_path / "a.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name in ("a.png", "b.png"):
                archive.writestr(name, text)
        os.utime(path, ns=(0, 0))
        files._open.clear()  # as in the next process
        identities += [file_identity(ArchiveMember(path, name)) for name in ("a.png", "b.png")]
    assert len(set(identities)) == 4


def test_the_identity_of_what_does_not_exist_is_an_error(archive: Path, tmp_path: Path) -> None:
    for file in (tmp_path / "gone.png", ArchiveMember(archive, "gone.png"), ArchiveMember(tmp_path / "gone.zip", "a")):
        with pytest.raises(MissingFileError, match="gone"):
            file_identity(file)
