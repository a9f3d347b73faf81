"""From the bytes of a MusicXML file, plain or compressed (.mxl), to its XML tree, in bounds."""

from __future__ import annotations

import codecs
import io
import re
import struct
import zipfile
import zlib
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree
from defusedxml.common import DefusedXmlException

from gapt_jax.data_pipeline.songs import BadSong

_MAX_BYTES = 16 << 20
_MAX_TAGS = 1_000_000
_MAX_MEMBERS = 64
_CONTAINER = "META-INF/container.xml"
_DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError, LookupError)
_LABEL = re.compile(rb"<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([A-Za-z0-9._-]{1,40})")
_KNOWN_LABELS = re.compile(r"cp\d+|iso8859-\d+|koi8-[ru]|mac-roman|shift_jis|euc_jp|euc_kr|gb2312|gbk|gb18030|big5")
# How a file begins whose letters take two bytes or more: with a byte order mark, or with a wide "<".
_WIDE = {
    b"\xff\xfe\0\0": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
    b"<\0": "utf-16-le",
    b"\0<": "utf-16-be",
}


def tree(content: bytes) -> Element:
    """The root element. Raises BadSong with the reason where there is none."""
    if len(content) > _MAX_BYTES:
        raise BadSong(f"it is larger than {_MAX_BYTES >> 20} MiB")
    return _tree(_unzipped(content) if content.startswith(b"PK") else content)


def _unzipped(content: bytes) -> bytes:
    """The MusicXML file in a .mxl archive; nothing is written to disk."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return _member(archive, _root_file(archive))
    except BadSong:
        raise
    except _DAMAGED as error:
        raise BadSong("its archive is damaged or truncated") from error


def _root_file(archive: zipfile.ZipFile) -> str:
    names = archive.namelist()
    if len(names) > _MAX_MEMBERS:
        raise BadSong(f"its archive has more than {_MAX_MEMBERS} files")
    if _CONTAINER in names and (named := _named_root(_member(archive, _CONTAINER))) in names:
        return str(named)
    scores = [
        name for name in names if name.lower().endswith((".xml", ".musicxml")) and not name.startswith("META-INF/")
    ]
    if not scores:
        raise BadSong("its archive has no MusicXML file")
    return scores[0]


def _named_root(container: bytes) -> str | None:
    """Path of the first root file; None where there is none or the container cannot be read: OpenEWLD writes file
    names with apostrophes into it unescaped."""
    try:
        first = _tree(container).find("rootfiles/rootfile")
    except BadSong:
        return None
    return None if first is None else first.get("full-path")


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    info = archive.getinfo(name)
    if info.flag_bits & 1:
        raise BadSong("its archive is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others cannot be read in bounds
        raise BadSong("its archive is not compressed by Deflate")
    with archive.open(info) as stream:
        content = stream.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise BadSong(f"its archive holds a file of more than {_MAX_BYTES >> 20} MiB")
    return content


def _tree(content: bytes) -> Element:
    if content.count(b"<") > _MAX_TAGS:
        raise BadSong(f"it has more than {_MAX_TAGS} tags")
    try:
        return defusedxml.ElementTree.fromstring(_text(content))
    except DefusedXmlException as error:
        raise BadSong("its XML declares entities, which are refused") from error
    except (ParseError, ValueError, LookupError) as error:
        raise BadSong(f"it is no well-formed XML ({error})") from error


def _text(content: bytes) -> str:
    """The text of a file. Many are labelled wrongly: the bytes themselves count first (two a letter, or valid UTF-8),
    then the label, then Latin-1 is taken. Raises UnicodeError where wide letters are damaged."""
    for beginning, encoding in _WIDE.items():
        if content.startswith(beginning):
            return content.decode(encoding)
    for encoding in ("utf-8-sig", _labelled(content)):
        try:
            return content.decode(encoding)
        except UnicodeError:
            continue
    return content.decode("latin-1")


def _labelled(content: bytes) -> str:
    """The encoding that the XML declaration names, Latin-1 where it names none of one or two bytes a letter."""
    label = _LABEL.match(content)
    try:
        name = codecs.lookup(label.group(1).decode()).name if label else ""
    except LookupError:
        name = ""
    return name if _KNOWN_LABELS.fullmatch(name) else "latin-1"
