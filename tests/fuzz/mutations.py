"""Damage valid files in a reproducible way: the same random generator gives the same damage."""

import io
import tarfile
import zipfile
from collections.abc import Callable
from random import Random

Mutation = Callable[[bytes, Random], bytes]
Members = dict[str, bytes]  # name -> content, of a folder or an archive

EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 40, (1 << 64) - 1)
HEADER_BYTES = 64  # most damage is done here, because most checks are about headers
# Values that a person or another program may write where a number, a word or a list is expected.
TOKENS = (
    *(
        "",
        "null",
        "~",
        "true",
        "NaN",
        ".nan",
        ".inf",
        "-.inf",
        "-1",
        "0",
        "1",
        "0x_",
        "0o9",
        "1e999",
        "1_0",
        "9" * 5000,
    ),
    *("2024-13-45", "2024-01-01", "12:61:99", "!!python/object:os.system {}", "!!binary abc=", "!!set {a}", "&a [*a]"),
    *("*missing", "? [a, b]\n: c", "{[1]: 2}", "<<: 3", "'", '"', "|", ">", "@", "`", "%YAML 9.9", "---", "..."),
    *("[", "{", "[" * 3000, "{a: " * 800, "\t", "\x00", "\ufeff", "\u2028", "\ud7ff", "é" * 40, "a" * 100_000),
    *("4294967296", "1000000000", "[]", "{}", "[[1, 2], [3]]", "../../etc/passwd", "C:\\x", "file:///etc/passwd"),
)
NAMES = (
    "",
    ".",
    "..",
    "../up.png",
    "/root.png",
    "a\\b.png",
    "x" * 300,
    "con",
    "é.png",
    "\n.png",
    "train",
    "a.csv",
    "b.pt",
)


def _place(content: bytes, random: Random) -> int:
    """A position, in every second call near the beginning."""
    end = len(content) if random.random() < 0.5 else min(HEADER_BYTES, len(content))
    return random.randrange(end) if end else 0


def _span(content: bytes, random: Random) -> tuple[int, int]:
    start = _place(content, random)
    return start, start + 1 + int(len(content) * random.random() ** 3)


def flip_bits(content: bytes, random: Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 8, 64))):
        if damaged:
            damaged[_place(content, random)] ^= 1 << random.randrange(8)
    return bytes(damaged)


def truncate(content: bytes, random: Random) -> bytes:
    return content[: _place(content, random)]


def zero_range(content: bytes, random: Random) -> bytes:
    start, end = _span(content, random)
    return content[:start] + bytes(len(content[start:end])) + content[end:]


def repeat_range(content: bytes, random: Random) -> bytes:
    start, end = _span(content, random)
    return (
        content[:end] + content[start:end] * random.choice((1, 2, 20 if len(content) < 100_000 else 1)) + content[end:]
    )


def remove_range(content: bytes, random: Random) -> bytes:
    start, end = _span(content, random)
    return content[:start] + content[end:]


def set_integer(content: bytes, random: Random) -> bytes:
    """Replace an integer, as a header stores one, by an extreme value."""
    size, order = random.choice((1, 2, 4, 4, 8)), random.choice(("little", "big"))
    number = random.choice(EXTREMES) % (1 << 8 * size)
    start = _place(content, random)
    return content[:start] + number.to_bytes(size, order) + content[start + size :]  # type: ignore[arg-type]


def insert_junk(content: bytes, random: Random) -> bytes:
    start = random.choice((0, _place(content, random), len(content)))
    return content[:start] + random.randbytes(random.choice((1, 4, 100, 5000))) + content[start:]


def insert_token(content: bytes, random: Random) -> bytes:
    """Replace a word of a text by a value of another kind."""
    words = content.split(b" ")
    token = random.choice(TOKENS).encode("utf-8", "surrogatepass")
    words[random.randrange(len(words))] = token + random.choice((b"", b"\n"))
    return b" ".join(words)


def shuffle_lines(content: bytes, random: Random) -> bytes:
    lines = content.split(b"\n")
    place, other = random.randrange(len(lines)), random.randrange(len(lines))
    changed = random.choice((lines[other], b"  " + lines[place], lines[place].lstrip(), lines[place] + b"\t", b""))
    return b"\n".join([*lines[:place], changed, *lines[place + 1 :]])


BYTES: tuple[Mutation, ...] = (
    *(flip_bits, truncate, zero_range, repeat_range, remove_range, set_integer, set_integer, insert_junk),
)
TEXT: tuple[Mutation, ...] = (*(insert_token,) * 8, *(shuffle_lines,) * 4, *BYTES)


def change_members(members: Members, random: Random, mutations: tuple[Mutation, ...] = BYTES) -> Members:
    """Damage, rename, remove or add a file of a folder."""
    names = sorted(members)
    name = random.choice(names)
    rest = {key: content for key, content in members.items() if key != name}
    kind = random.choice(("damage", "damage", "damage", "rename", "remove", "add", "swap"))
    if kind == "damage":
        return rest | {name: random.choice(mutations)(members[name], random)}
    if kind == "rename":
        return rest | {random.choice(NAMES) or name: members[name]}
    if kind == "add":
        return members | {random.choice(NAMES) or "junk": random.randbytes(random.choice((0, 10, 5000)))}
    if kind == "swap":
        return rest | {name: members[random.choice(names)]}
    return rest


def rewrite_zip(content: bytes, random: Random, mutations: tuple[Mutation, ...] = BYTES) -> bytes:
    """Damage a member of a zip file and write the file anew, so that its checksums are right."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for name, changed in change_members(members, random, mutations).items():
            archive.writestr(name or "empty", changed)
    return stream.getvalue()


def rewrite_tar(content: bytes, random: Random) -> bytes:
    """Damage, rename or link a member of a tar file and write the file anew."""
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        files = {entry.name: archive.extractfile(entry).read() for entry in archive if entry.isfile()}  # type: ignore[union-attr]
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz" if content.startswith(b"\x1f\x8b") else "w") as archive:
        for name, changed in change_members(files, random).items():
            entry = tarfile.TarInfo(name or "empty")
            entry.size = len(changed)
            if random.random() < 0.02:
                entry.type, entry.linkname, entry.size = (
                    random.choice((tarfile.SYMTYPE, tarfile.LNKTYPE)),
                    "/etc/passwd",
                    0,
                )
            archive.addfile(entry, io.BytesIO(changed))
    return stream.getvalue()
