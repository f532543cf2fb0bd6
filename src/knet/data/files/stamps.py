"""Images named by the time at which they were taken, as cameras, robots and phones name them.

    1305031452.791720.png, left_1403636579_763555584.png      seconds since 1970 and their fraction
    1403636579763555584.png, ...__1532402927612460.jpg        milli-, micro- or nanoseconds since 1970
    2023-05-01_12-30-15.123.png, IMG_20230501_123015.jpg      date and clock time
    12-30-15.123.png, 123015_123.png                          clock time
    12.345.png, 12.5.png                                      seconds since the start

Zero-padded counters are none of these, nor is a fraction that only counts.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise, starmap
from statistics import median

_DATE = r"(?:19[7-9]\d|20\d\d)(?P<dash>[-_.]?)(?:0[1-9]|1[0-2])(?P=dash)(?:0[1-9]|[12]\d|3[01])"
_CLOCK = r"(?:[01]\d|2[0-3])([-_:.h]?)[0-5]\d[-_:.m]?[0-5]\d"
_FRACTION = r"(?:s?([-_.,]?)(\d{1,9}))?"
_MOMENT = re.compile(rf"(?<!\d)({_DATE}[-_T .]{{0,2}}{_CLOCK}){_FRACTION}(?!\d)")
_EPOCH = re.compile(r"(?<!\d)([1-9]\d{12,18})(?!\d)")
_SECONDS = re.compile(r"(?<!\d)([1-4]\d{9})(?:([-_.,])(\d{1,9}))?(?!\d)")
_OF_DAY = re.compile(r"(?<!\d)((?:[01]\d|2[0-3])([-:h_.])[0-5]\d[-:m_.][0-5]\d)(?:s?([-_.,])(\d{1,9}))?(?!\d)")
_COMPACT = re.compile(r"(?<!\d)((?:[01]\d|2[0-3])[0-5]\d[0-5]\d)([-_.,])(\d{3}|\d{6})(?!\d)")
_SINCE_START = re.compile(r"(?<!\d)(\d{1,9})([.])(\d{1,9})(?!\d)")
_DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Stamped:
    """An image by its place in a list, with what stands around the time in its name, and the time in seconds."""

    place: int
    around: tuple[str, str]
    seconds: float


def read_stamps(stems: Sequence[str]) -> list[list[Stamped]] | None:
    """The images of one folder in the order of the times in their names, sequence by sequence; None without such times.

    They are one sequence, unless what stands around the time, as `cam0_` and `cam1_`, divides them into several.
    """
    for read in (_moments, _epochs, _seconds, _times_of_day, _compact_times_of_day, _since_start):
        found = read(stems)
        if found is None or len({stamped.seconds for stamped in found}) < min(2, len(found)):
            continue
        groups: dict[tuple[str, str], list[Stamped]] = {}
        for stamped in found:
            groups.setdefault(stamped.around, []).append(stamped)
        if min(map(len, groups.values())) == 1:  # what stands around it counts the images
            if read is _since_start and len(groups) > 1:  # and the number may be a score
                continue
            groups = {("", ""): found}
        of_day = read in (_times_of_day, _compact_times_of_day)
        return [_in_order(group, of_day) for group in groups.values()]
    return None


def frames_passed(seconds: Sequence[float]) -> list[int] | None:
    """The frames since the first at times in order, those that are missing included; None where times do not grow."""
    if any(after <= before for before, after in pairwise(seconds)):
        return None
    step, passed = usual_step(seconds), [0]
    for before, after in pairwise(seconds):
        passed.append(passed[-1] + max(round((after - before) / step), 1))
    return passed


def usual_step(times: Iterable[float]) -> float:
    """The usual distance of neighbours in time, 1 where there is none."""
    steps = [after - before for before, after in pairwise(times) if after > before]
    return median(steps) if steps else 1.0


def _in_order(group: list[Stamped], of_day: bool) -> list[Stamped]:
    ordered = sorted(group, key=lambda stamped: (stamped.seconds, stamped.place))
    gaps = [after.seconds - before.seconds for before, after in pairwise(ordered)]
    if of_day and gaps and max(gaps) > _DAY / 2:  # over midnight: the evening comes first
        morning = gaps.index(max(gaps)) + 1
        later = [Stamped(s.place, s.around, s.seconds + _DAY) for s in ordered[:morning]]
        ordered = [*ordered[morning:], *later]
    return ordered


def _matches(pattern: re.Pattern[str], stems: Sequence[str]) -> list[re.Match[str]] | None:
    """The last match in each stem, None if one has none."""
    found = [list(pattern.finditer(stem)) for stem in stems]
    return [matches[-1] for matches in found] if all(found) else None


def _stamped(matches: Sequence[re.Match[str]], seconds: Iterable[float]) -> list[Stamped]:
    around = [(match.string[: match.start()], match.string[match.end() :]) for match in matches]
    return list(starmap(Stamped, zip(range(len(matches)), around, seconds, strict=True)))


def _with_fractions(
    matches: list[re.Match[str]] | None, whole: Sequence[float], places: tuple[int, int], decimal: bool = True
) -> list[Stamped] | None:
    """Whole seconds and the fractions in the groups at `places`: the separator and the digits.

    After a point they are decimals; else, and where nine digits are the most, whole milli-, micro- or nanoseconds,
    which some programs write without the zeros in front. A counter is no fraction: it tells the order alone.

    Args:
        decimal: whether what follows a point is a fraction, whatever it looks like.
    """
    if matches is None:
        return None
    digits = [match[places[1]] or "" for match in matches]
    points = [match[places[0]] in (".", ",") for match in matches]
    most = max(map(len, digits))
    if not (decimal and all(points)) and _counts(whole, digits, most):
        return _stamped(matches, whole) if decimal else None
    filled = [text if point and most < 9 else text.zfill(most) for point, text in zip(points, digits, strict=True)]
    return _stamped(matches, (a + int(f"0{b}") / 10 ** len(b) for a, b in zip(whole, filled, strict=True)))


def _counts(whole: Sequence[float], digits: Sequence[str], most: int) -> bool:
    """Whether digits count from one image to the next, instead of rolling over with each second."""
    numbers = sorted((second, int(text)) for second, text in zip(whole, digits, strict=True) if text)
    steps = [after[1] - before[1] for before, after in pairwise(numbers) if after[0] == before[0]]
    return bool(steps) and median(steps) == 1 and max(number for _, number in numbers) < 0.9 * 10**most


def _moments(stems: Sequence[str]) -> list[Stamped] | None:
    matches = _matches(_MOMENT, stems)
    try:
        digits = [re.sub(r"\D", "", match[1]) for match in matches or ()]
        whole = [datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=UTC).timestamp() for text in digits]
    except ValueError:  # the 31st of a short month
        return None
    return _with_fractions(matches, whole, (4, 5))


def _epochs(stems: Sequence[str]) -> list[Stamped] | None:
    matches = _matches(_EPOCH, stems)
    if matches is None:
        return None
    longest = max(len(match[1]) for match in matches)
    unit = 1e3 if longest <= 14 else 1e6 if longest <= 16 else 1e9
    return _stamped(matches, (int(match[1]) / unit for match in matches))


def _seconds(stems: Sequence[str]) -> list[Stamped] | None:
    matches = _matches(_SECONDS, stems)
    return _with_fractions(matches, [float(match[1]) for match in matches or ()], (2, 3))


def _times_of_day(stems: Sequence[str]) -> list[Stamped] | None:
    matches = _matches(_OF_DAY, stems)
    if matches is None or any(match[2] in "_." and not match[4] for match in matches):
        return None  # 01_02_03 may be anything
    clocks = [[int(part) for part in re.findall(r"\d+", match[1])] for match in matches]
    return _with_fractions(matches, [3600.0 * h + 60 * m + s for h, m, s in clocks], (3, 4))


def _compact_times_of_day(stems: Sequence[str]) -> list[Stamped] | None:
    """123015_123; names such as 000002_000017 (video and frame) have no such hours, nor fractions up to a second."""
    matches = _matches(_COMPACT, stems)
    if matches is None:
        return None
    whole = [3600.0 * int(m[1][:2]) + 60 * int(m[1][2:4]) + int(m[1][4:]) for m in matches]
    if max(whole) < 3600 or max(int(m[3]) / 10 ** len(m[3]) for m in matches) < 0.5:
        return None
    return _with_fractions(matches, whole, (2, 3), decimal=False)


def _since_start(stems: Sequence[str]) -> list[Stamped] | None:
    matches = _matches(_SINCE_START, stems)
    found = _with_fractions(matches, [float(match[1]) for match in matches or ()], (2, 3), decimal=False)
    times = sorted(stamped.seconds for stamped in found or ())
    steps = {round(after - before, 6) for before, after in pairwise(times)}
    tenths = all(len(match[3]) == 1 for match in matches or ())  # 1.1 and 1.2 may be a chapter's
    return None if tenths and len(steps) > 1 else found
