"""Bar charts as SVG, written by hand: nothing to install, readable on light and on dark pages."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from harness.tables import number

if TYPE_CHECKING:
    from harness.results import Result

__all__ = ["bar_chart"]

WIDTH = 760
NAMES = 240
VALUES = 100
MARGIN = 16
TOP = 56
ROW = 24
BAR = 14

# A page shows the chart as an image, which sees the reader's preference but not the page's colors: it brings its own
# background.
STYLE = """
    text { font: 13px system-ui, sans-serif; fill: #24292f; }
    .title { font-weight: 600; font-size: 15px; }
    .small { font-size: 12px; fill: #57606a; }
    .card { fill: #ffffff; stroke: #d0d7de; }
    .bar { fill: #9aa7b5; }
    .ours { fill: #1f6feb; }
    .spread { stroke: #24292f; stroke-width: 1.5; opacity: 0.65; }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3; }
      .small { fill: #9198a1; }
      .card { fill: #0d1117; stroke: #3d444d; }
      .bar { fill: #5b6673; }
      .ours { fill: #4493f8; }
      .spread { stroke: #e6edf3; }
    }
"""


def bar_chart(result: Result) -> str:
    """One workload: a bar to the median of each contender, a line from its smallest to its largest value."""
    workload = result.workload
    spreads = [(who, spread / workload.divisor) for who in result.ranking() if (spread := result.spread(who.key))]
    room = WIDTH - NAMES - VALUES - 2 * MARGIN
    scale = room / max((spread.high for _, spread in spreads), default=1.0)
    height = TOP + ROW * max(len(spreads), 1) + MARGIN
    better = "shorter is better" if workload.lower_is_better else "longer is better"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'role="img">',
        f"  <title>{escape(result.title)}</title>",
        f"  <style>{STYLE}  </style>",
        f'  <rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="6"/>',
        f'  <text class="title" x="{MARGIN}" y="24">{escape(result.title)}</text>',
        f'  <text class="small" x="{MARGIN}" y="42">{escape(workload.unit)}, {better}; line: smallest to largest '
        "of the rounds</text>",
    ]
    start = MARGIN + NAMES
    for row, (contender, spread) in enumerate(spreads):
        middle = TOP + ROW * row + ROW / 2
        kind = "bar ours" if contender.peer.startswith("pyipc") else "bar"
        low, high = (start + value * scale for value in (spread.low, spread.high))
        lines += [
            f'  <text x="{start - 8}" y="{middle + 4.5:.1f}" text-anchor="end">{escape(contender.name)}</text>',
            f'  <rect class="{kind}" x="{start}" y="{middle - BAR / 2:.1f}" width="{spread.median * scale:.1f}" '
            f'height="{BAR}" rx="2"/>',
            f'  <line class="spread" x1="{low:.1f}" x2="{high:.1f}" y1="{middle:.1f}" y2="{middle:.1f}"/>',
            f'  <text x="{max(high, start + spread.median * scale) + 6:.1f}" y="{middle + 4.5:.1f}">'
            f"{number(spread.median)}</text>",
        ]
    if not spreads:
        lines.append(f'  <text x="{MARGIN}" y="{TOP + 16}">Nothing was measured.</text>')
    return "\n".join([*lines, "</svg>", ""])
