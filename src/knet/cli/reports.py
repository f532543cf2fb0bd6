"""Reports on data sets as text."""

from typing import Any

from knet.errors import counted


def report_text(report: Any) -> str:
    """A report as lines: what is there, a row for each class, the findings."""
    head = [f"{report.name}: {counted(report.images, 'image')}"]
    if report.sizes is not None:
        small, large = (f"{width}x{height}" for height, width in report.sizes)
        head.append(f"{small} pixels" if small == large else f"{small} to {large} pixels")
    head.append(f"{report.void_share:.1%} void")
    for what, ids in (("segment", report.segment_ids), ("category", report.category_ids)):
        if ids is not None:
            head.append(f"{what} ids {ids[0]}..{ids[1]}")
    width = max([len(row.name) for row in report.classes] + [10])
    title = f"{'class':<{width}} {'id':>5} {'kind':<6}{'images':>8}{'segments':>10}{'crowds':>8}{'pixels':>9}"
    rows = [
        f"{row.name:<{width}} {row.id:>5} {'thing' if row.thing else 'stuff':<6}"
        f"{row.images:>8}{row.segments:>10}{row.crowds:>8}{row.share:>9.2%}"
        for row in report.classes
    ]
    warnings = len(report.findings) - report.errors
    end = f"{report.errors} kinds of errors, {warnings} of warnings" if report.findings else "nothing wrong"
    return "\n".join([", ".join(head), title, *rows, *(finding.line for finding in report.findings), end])
