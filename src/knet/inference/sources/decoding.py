"""Decodes the frames of an open video, past what is damaged, up to where it breaks off."""

import logging
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

import av
import numpy as np

from knet.errors import DataError
from knet.inference.sources.opening import packets, picture_stream
from knet.inference.sources.whole import lacks_its_end

_logger = logging.getLogger("knet")

_REORDERED = 4  # how many frames may be decoded before a frame that is stored earlier but shown later
_HOPELESS = 250  # packets in a row without a frame, after which a stream that has no end is given up
_AT_THE_END = 10  # packets at the end of a whole file that may be broken without it being called broken off
_DELAY = 64  # packets after which a frame that has not come will not come
_REGULAR = 5  # frames at equal distances, after which a larger one is a gap
_GAPS = 1000  # missing frames that are counted at most
_SAME = 0.005  # seconds by which two times of one frame may differ
_HOLE = 0.5  # seconds without a frame, in a video of a regular rate, that are told
_NAMED = 5  # places of lost frames that are named


def decode_frames(
    container: Any,
    what: str,
    advice: str = "copy it again",
    live: bool = False,
    told: bool = True,
    first: int | None = None,
) -> Iterator[tuple[np.ndarray, float]]:
    """The frames of an open video, (H,W,3) uint8 RGB, rotated as the camera noted, and their times in seconds from 0.

    They may differ in size. Packets that cannot be decoded are left out; a warning of the logger `knet` counts them.

    Args:
        what: begins messages about it.
        advice: ends the message that it breaks off.
        live: whether it has no end; losses are then told as they come, ever more rarely.
        told: whether losses are told at all.
        first: the stamp of the key frame at which the container stands, if not at the beginning; see `begin_at`.

    Raises:
        DataError: the video breaks off, after its last whole frame, or nothing of it can be decoded any more.
    """
    losses = _Losses(what, live)
    timeline = _Timeline(picture_stream(container), live)
    done, cut, held = 0, "", list[Any]()
    try:
        for frame in _until_cut(container, losses, live, first):
            if isinstance(frame, Exception):
                cut = reason_of(frame)
            elif held or frame.is_corrupt:
                held.append(frame)  # in the middle of a video it is a frame; at the end, where the file breaks off
            else:
                held = [frame]
            while held and not (held[0].is_corrupt and len(held) <= _REORDERED):
                losses.damaged += held[0].is_corrupt
                done += 1
                yield _picture(held[0]), timeline.seconds(held.pop(0).time)
        for frame in held:
            if not frame.is_corrupt:
                done += 1
                yield _picture(frame), timeline.seconds(frame.time)
    except (OSError, ValueError) as error:
        cut = str(error)
    finally:
        if told:
            losses.tell(done, bool(cut), timeline)
    if cut or any(frame.is_corrupt for frame in held):
        raise DataError(f"{what} breaks off after {done} frames ({cut or 'in the middle of one'}); {advice}.")


def refuse_unknown_coding(container: Any, what: str) -> None:
    """Refuses an open video whose pictures nothing here decodes; `what` begins the sentence."""
    if picture_stream(container).codec_context is None:
        container.close()
        raise DataError(f"{what} is coded in a way that is not known here; convert it, for example to H.264.")


def reason_of(error: Exception) -> str:
    """Why a video cannot be read further, without its address, which may contain a password."""
    if isinstance(error, av.error.ExitError):
        return "nothing has come for too long"
    return str(getattr(error, "strerror", None) or (error if isinstance(error, EOFError) else type(error).__name__))


class _Losses:
    """What could not be decoded of a video, and where: at the times of packets that no frame came of."""

    def __init__(self, what: str, live: bool):
        self.what, self.live = what, live
        self.reason = ""
        self.count = self.damaged = self.in_a_row = 0
        self.doubtful = False  # whether the file itself says that packets are damaged
        self._waiting = dict[float, None]()  # times of packets whose frames have not come
        self._lost = list[float]()

    def sent(self, packet: Any) -> None:
        """Notes a packet that goes to the decoder."""
        self.doubtful = self.doubtful or packet.is_corrupt
        if packet.pts is not None:
            self._waiting[float(packet.pts * packet.time_base)] = None
        if len(self._waiting) > _DELAY:
            self._give_up(next(iter(self._waiting)))

    def shown(self, frame: Any) -> None:
        """Notes a frame that came out of it."""
        self._waiting.pop(frame.time, None)

    def add(self, error: Exception) -> None:
        """Notes that a packet is broken, this one or one of those before it."""
        self.count, self.in_a_row = self.count + 1, self.in_a_row + 1
        self.reason = reason_of(error)
        if self.live and str(self.count).strip("0") == "1":  # the first, the tenth, the hundredth ...
            _logger.warning(f"{self.what}: {_frames(self.count)} could not be decoded ({self.reason}); it goes on.")

    def tell(self, done: int, cut: bool, timeline: "_Timeline") -> None:
        """Says at the end of a video what was lost of it, unless it is the end itself that is broken."""
        for stamp in list(self._waiting):
            self._give_up(stamp)
        count = self.count - (self.in_a_row if cut else 0)
        lost = sorted(stamp - timeline.zero for stamp in self._lost)
        # A decoder may also drop a packet without a word, which then lacks where frames come regularly.
        silent = any(abs(place - gap) < _SAME for place in lost for gap in timeline.gaps)
        places = lost[:count]
        if (count or silent or self.damaged or self.doubtful) and len(timeline.gaps) > count:
            count, places = len(timeline.gaps), timeline.gaps
        if count > 0 and done and not self.live:
            named = ", ".join(f"{place:.2f} s" for place in places[:_NAMED])
            where = f" at {named}{' and later' if count > _NAMED else ''}" if places else ""
            why = f" ({self.reason})" if self.reason else ""
            _logger.warning(f"{self.what}: {_frames(count)}{where} could not be decoded{why}; the other {done} were.")
        elif timeline.holes and not self.live:
            begin, end = timeline.holes[0]
            more = f", and {len(timeline.holes) - 1} more such holes" if len(timeline.holes) > 1 else ""
            _logger.warning(
                f"{self.what}: no frame comes between {begin:.2f} s and {end:.2f} s{more}; the video was stopped "
                "there, or that part of the file is damaged."
            )
        if self.damaged and done:
            _logger.warning(f"{self.what}: {_frames(self.damaged)} of {done} came out damaged and went on so.")

    def _give_up(self, stamp: float) -> None:
        del self._waiting[stamp]
        if len(self._lost) < _GAPS:
            self._lost.append(stamp)


def _frames(count: int) -> str:
    return f"{count} frames" if count > 1 else "a frame"


class _Timeline:
    """The time of each frame in seconds since the beginning, which grows even where stamps lack or start again."""

    def __init__(self, stream: Any, live: bool):
        self._step = 1 / float(stream.guessed_rate or stream.average_rate or 25)
        self._known = stream.start_time is not None and not live
        self.zero = float(stream.start_time * stream.time_base) if self._known else 0.0
        self.holes = list[tuple[float, float]]()  # of half a second or more between two frames
        self.gaps = list[float]()  # times at which a frame is missing, as far as frames came regularly
        self._steps = deque[float](maxlen=_REGULAR)
        self._stamp: float | None = None
        self._seconds = -self._step

    def seconds(self, stamp: float | None) -> float:
        """The time of the next frame, by its stamp if it has one."""
        seconds = self._seconds + self._step
        if stamp is not None:
            if self._known and (self._stamp is None or stamp > self._stamp):
                seconds = stamp - self.zero
            else:  # where a clock begins, or begins again, later stamps are counted from there
                self.zero, self._known = stamp - seconds, True
            self._stamp = stamp
        self._look_for_gap(seconds - self._seconds)
        self._seconds = max(seconds, 0.0)
        return self._seconds

    def _look_for_gap(self, step: float) -> None:
        usual = median(self._steps) if len(self._steps) == _REGULAR else 0.0
        if usual and max(self._steps) < 1.3 * usual and len(self.gaps) < _GAPS:
            if step > max(_HOLE, 5 * usual):
                self.holes.append((self._seconds, self._seconds + step))
            self.gaps += [self._seconds + n * usual for n in range(1, min(round(step / usual), _GAPS))]
        self._steps.append(step)


def _picture(frame: Any) -> np.ndarray:
    image = frame.to_ndarray(format="rgb24", threads=1)  # more take longer
    return _upright(image, np.frombuffer(noted, np.int32)) if (noted := frame.side_data.get("DISPLAYMATRIX")) else image


def _upright(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The image turned and mirrored as its display matrix (9,) says: x' = a x + c y, y' = b x + d y."""
    a, b, _, c, d = (int(value) for value in matrix[:5])
    across, down = a, d
    if abs(b) + abs(c) > abs(a) + abs(d):
        image, across, down = image.swapaxes(0, 1), c, b
    return np.ascontiguousarray(image[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])


def _until_cut(container: Any, losses: _Losses, live: bool, first: int | None) -> Iterator[Any]:
    """Decoded frames; where the video breaks off, the last item is an error, after all frames of the decoder.

    Packets with a smaller stamp than the `first` frame's belong to what comes before it.
    """
    stream, partial, ended = picture_stream(container), False, False
    while not ended:
        try:
            for packet in packets(container, stream):
                if first is not None and packet.pts is not None and packet.pts < first:
                    continue
                partial = packet.is_corrupt if packet.size else partial
                frames = _decoded(packet, losses)
                losses.in_a_row = 0 if frames and packet.size else losses.in_a_row
                yield from frames
                if live and losses.in_a_row > _HOPELESS:
                    yield EOFError(losses.reason)
                    return
            ended = True
        except av.error.FFmpegError as error:
            # Only faulty data may be followed by better; and where faults alone come, there is an end to patience.
            faulty = isinstance(error, av.error.InvalidDataError)
            if faulty:
                losses.add(error)
            if not faulty or losses.in_a_row > _HOPELESS:
                with suppress(av.error.FFmpegError):
                    yield from stream.codec_context.decode(None)
                yield error
                return
    if losses.in_a_row > _AT_THE_END:
        yield EOFError(losses.reason)
    elif partial or lacks_its_end(Path(container.name)):
        yield EOFError("the file is cut off")


def _decoded(packet: Any, losses: _Losses) -> list[Any]:
    """The frames that come out of the decoder after a packet; none if it is broken, which is noted."""
    losses.sent(packet)
    try:
        frames = packet.decode()
    except av.error.FFmpegError as error:
        losses.add(error)
        return []
    for frame in frames:
        losses.shown(frame)
    return frames
