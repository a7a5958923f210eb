"""Opens video files: only real containers, the best video stream, and whether the file is all there."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from gpu_jobs.errors import ItemError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

MAX_PIXELS = 1 << 26
"""Pictures with more pixels than 8192 x 8192 are refused, since one of them takes hundreds of megabytes."""
_FORMATS = (
    "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,asf,flv,live_flv,ogg,mxf,gxf,nut,ivf,obu,av1,h264,hevc,vvc,m4v,vc1,"
    "mjpeg,dv,rm,wtv,yuv4mpegpipe,gif,apng,swf,roq,nsv,nuv,amv,3g2"
)
"""FFmpeg's names of the formats that are read: none of them makes it open another file."""
_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": _FORMATS}
_TS_PACKET = 188
_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_DEFAULT_PIXELS = 5_000_000
"""What being the default counts for, in pixels, as in ffmpeg_mux_init.c."""


@contextmanager
def opened(path: Path) -> "Iterator[tuple[InputContainer, VideoStream]]":
    """Open a file and its best video stream, for decoding in the calling thread.

    Raises:
        ItemError: it is no video, has no video stream, its codec has no decoder here, or its pictures are too large.
    """
    import av

    try:
        container = av.open(str(path), options=_OPTIONS, metadata_errors="replace")
    except FileNotFoundError as error:
        raise ItemError(f"'{path}' does not exist") from error
    except av.error.ArgumentError as error:
        raise ItemError(
            f"'{path}' is no video file of a known format; playlists and scripts that name other files are not read"
        ) from error
    except (av.FFmpegError, OSError) as error:
        size = path.stat().st_size if path.exists() else 0
        what = words(error) if size else "the file is empty"
        raise ItemError(f"'{path}' cannot be opened as a video: {what}") from error
    with container:
        stream = _best_stream(container)
        if stream is None:
            raise ItemError(f"'{path}' has no video stream")
        if stream.codec_context is None:
            raise ItemError(
                f"'{path}' has video in a codec that nothing here can decode; convert it, for example to H.264"
            )
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height > MAX_PIXELS:
            raise ItemError(f"the pictures of '{path}' have {width} x {height} pixels; at most {MAX_PIXELS} are read")
        stream.thread_type = "NONE"
        yield container, stream


def words(error: Exception) -> str:
    """Return the cause of an FFmpeg or system error without its address."""
    text = getattr(error, "strerror", None) or str(error)
    return text[:1].lower() + text[1:]


def is_cut_short(path: Path, container: str) -> bool:
    """Return whether the file is shorter than its own headers say.

    Args:
        path: the file.
        container: FFmpeg's name of its format. Formats that do not announce their size give False.
    """
    size = path.stat().st_size
    end: float = 0
    with path.open("rb") as file:
        if "mp4" in container:
            end = _boxes_end(file, size)
        elif "matroska" in container:
            end = _segment_end(file)
        elif container == "avi":
            end = _riff_end(file, size)
        elif container == "flv":
            end = _announced_by_flv(file)
        elif container == "asf":
            end = _announced_by_asf(file)
        elif container == "ogg":
            return not _ends_stream(file, size)
        elif container == "mpegts":
            return size % _TS_PACKET != 0 and _is_plain_ts(path)
    return end > size


def _best_stream(container: "InputContainer") -> "VideoStream | None":
    """Return the stream that the command `ffmpeg` chooses: the one marked as default, else that of the largest picture.

    The cover picture of an audio file is never chosen.
    """
    from av.stream import Disposition

    def score(stream: "VideoStream") -> int:
        codec = stream.codec_context
        pixels = codec.width * codec.height if codec else 0
        return pixels + _DEFAULT_PIXELS * bool(stream.disposition & Disposition.default)

    streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    return max(streams, key=score, default=None)


def _boxes_end(file: IO[bytes], size: int) -> int:
    """Follow the boxes of an MP4 or QuickTime file (ISO/IEC 14496-12, 4.2) to where the last one ends."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8:  # noqa: PLR2004 - 0: up to the end of the file
            return size
        at += length
    return max(size, at)


def _segment_end(file: IO[bytes]) -> int:
    """Return where the segment of a Matroska file (RFC 8794 and RFC 9559) ends; 0 if the file does not say."""
    file.seek(4)
    length, _ = _ebml_size(file)
    file.seek(length + 4, 1)  # past the EBML header's body and the segment's id
    length, is_known = _ebml_size(file)
    return file.tell() + length if is_known else 0


def _ebml_size(file: IO[bytes]) -> tuple[int, bool]:
    first = (file.read(1) or b"\xff")[0]
    num_more = 8 - first.bit_length()
    bits = 7 * (num_more + 1)
    value = int.from_bytes(bytes([first & (0xFF >> (num_more + 1))]) + file.read(max(0, num_more)), "big")
    return value, value != (1 << bits) - 1


def _riff_end(file: IO[bytes], size: int) -> int:
    """Follow the RIFF chunks of an AVI file, of which long files have several, to where the last one ends."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        head = file.read(8)
        if head[:4] != b"RIFF":
            break
        length = int.from_bytes(head[4:], "little")
        at += 8 + length + length % 2
    return at - at % 2 if at <= size + 1 else at


def _announced_by_flv(file: IO[bytes]) -> float:
    """Return the number in an FLV file's first tag under the name "filesize"; 0 if there is none."""
    _, name, rest = file.read(1 << 12).partition(b"\x00\x08filesize\x00")
    return float(struct.unpack(">d", rest[:8])[0]) if name and len(rest) >= 8 else 0.0  # noqa: PLR2004


def _announced_by_asf(file: IO[bytes]) -> int:
    """Return the size in the file properties object of an ASF or WMV file (ASF 1.20.03, 3.2); 0 if there is none."""
    _, found, rest = file.read(1 << 16).partition(_FILE_PROPERTIES)
    is_live = not found or len(rest) < 73 or rest[72] & 1  # noqa: PLR2004 - flag "broadcast": the size is not valid
    return 0 if is_live else int.from_bytes(rest[24:32], "little")


def _ends_stream(file: IO[bytes], size: int) -> bool:
    """Whether the last page of an Ogg file (RFC 3533) has the flag "end of stream"."""
    file.seek(max(0, size - (1 << 17)))
    tail = file.read()
    at = tail.rfind(b"OggS")
    return at >= 0 and len(tail) > at + 5 and bool(tail[at + 5] & 4)


def _is_plain_ts(path: Path) -> bool:
    """Whether packets have 188 bytes; those of Blu-ray discs have 192."""
    with path.open("rb") as file:
        head = file.read(_TS_PACKET + 1)
    return len(head) > _TS_PACKET and head[0] == head[_TS_PACKET] == 0x47  # noqa: PLR2004 - the sync byte
