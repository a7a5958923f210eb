"""Small videos whose pictures tell where up and left are and how many came before, and flaws that real ones have."""

import struct
from fractions import Fraction

import av
import numpy as np

WIDTH, HEIGHT, RATE = 96, 64, 25
TS_BYTES = 188


def pictures(num_frames, *, scene=30):
    """RGB: red grows to the right, green downwards; blue changes with each scene, under noise that moves."""
    noise = np.random.default_rng(0).integers(0, 60, (HEIGHT, WIDTH))
    red, green = np.meshgrid(np.linspace(0, 255, WIDTH), np.linspace(0, 255, HEIGHT))
    for at in range(num_frames):
        blue = np.full_like(red, 200 if at // scene % 2 else 20)
        blue += np.roll(noise, at, axis=1)
        yield np.stack([red, green, blue], axis=-1).astype(np.uint8)


def write(path, codec="libx264", *, num_frames=100, options=None, sar=None, pixels="yuv420p", container_options=None):
    """Encode `pictures`; returns the path."""
    with av.open(str(path), "w", options=container_options or {}) as container:
        add_stream(container, codec, num_frames, options or {"g": "25"}, sar=sar, pixels=pixels)
    return path


def add_stream(container, codec, num_frames, options, *, sar=None, pixels="yuv420p", size=(WIDTH, HEIGHT)):
    stream = container.add_stream(codec, rate=RATE)
    (stream.width, stream.height), stream.pix_fmt = size, pixels
    stream.options = options
    stream.codec_context.thread_count = 1
    if sar:
        stream.codec_context.sample_aspect_ratio = sar
    for at, picture in enumerate(pictures(num_frames)):
        frame = _with_palette(picture) if pixels == "pal8" else av.VideoFrame.from_ndarray(picture)
        frame = frame if pixels == "pal8" else frame.reformat(*size, pixels)
        frame.pts, frame.time_base = at, Fraction(1, RATE)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def _with_palette(picture):
    """Red and green in 16 steps each."""
    indexes = (picture[..., 0] >> 4 << 4) | (picture[..., 1] >> 4)
    steps = np.arange(256)
    palette = np.stack([np.full(256, 255), steps >> 4 << 4, (steps & 15) << 4, np.zeros(256)], axis=1)
    return av.VideoFrame.from_ndarray((indexes, palette.astype(np.uint8)), format="pal8")


def remux(source, target, change):
    """Copy packets; `change(number, packet)` may change one, or return False to leave it out."""
    with av.open(str(source)) as whole, av.open(str(target), "w") as container:
        stream = container.add_stream_from_template(whole.streams.video[0])
        packets = [packet for packet in whole.demux(video=0) if packet.size]
        for number, packet in enumerate(packets):
            if change(number, packet) is not False:
                packet.stream = stream
                container.mux(packet)
    return target


def cut(path, share=0.6):
    body = path.read_bytes()
    path.write_bytes(body[: int(len(body) * share)])
    return path


def turn(path, matrix):
    """Write a display matrix into an MP4's first track header."""
    body = bytearray(path.read_bytes())
    at = body.find(b"tkhd")
    at += 8 + (20 if body[at + 4] == 0 else 32) + 16
    a, b, c, d = (value << 16 for value in matrix)
    struct.pack_into(">9i", body, at, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(body)
    return path


def edit(path, *, num_frames, from_frame=0):
    """Let an MP4's edit list show `num_frames` from `from_frame` on."""
    body = bytearray(path.read_bytes())
    at = body.find(b"elst") + 12
    with av.open(str(path)) as container:
        ticks = int(1 / container.streams.video[0].time_base)
    (media_time,) = struct.unpack_from(">i", body, at + 4)
    struct.pack_into(">Ii", body, at, num_frames * 1000 // RATE, media_time + from_frame * ticks // RATE)
    path.write_bytes(body)
    return path


def ts_packets(path):
    body = path.read_bytes()
    return [bytearray(body[at : at + TS_BYTES]) for at in range(0, len(body), TS_BYTES)]


def lose_continuity(path, *, loses_data):
    """A jump of the transport stream's continuity counter in the middle, with or without a lost packet."""
    found = ts_packets(path)
    video = [at for at, packet in enumerate(found) if _pid(packet) == 0x100 and packet[3] & 0x10]
    middle = video[len(video) // 2]
    if loses_data:
        del found[middle]
    else:
        for at in video[len(video) // 2 :]:
            found[at][3] = found[at][3] & 0xF0 | (found[at][3] + 5) & 15
    path.write_bytes(b"".join(found))
    return path


def lose_packets(path, count, share=0.5):
    """Leave out `count` packets of the video of a transport stream, after that share of it."""
    found = ts_packets(path)
    video = [at for at, packet in enumerate(found) if _pid(packet) == 0x100 and packet[3] & 0x10]
    gone = set(video[int(len(video) * share) :][:count])
    path.write_bytes(b"".join(packet for at, packet in enumerate(found) if at not in gone))
    return path


def damage_frame(path, number):
    """Overwrite a part of a packet of an AVI's video."""
    with av.open(str(path)) as container:
        packet = [each for each in container.demux(video=0) if each.size][number]
        at = packet.pos + packet.size // 3
    body = bytearray(path.read_bytes())
    body[at : at + 24] = np.random.default_rng(1).bytes(24)
    path.write_bytes(body)
    return path


def _pid(packet):
    return (packet[1] & 31) << 8 | packet[2]
