"""How does it look? Runs and results on a terminal, as tables, as one HTML file and as JSON."""

from anystep.view.html import Figure, Section, check_folder, facts, page, write
from anystep.view.levels import Measured, levels, levels_legend
from anystep.view.live import Live
from anystep.view.pictures import grid, half_blocks, png
from anystep.view.plot import curve
from anystep.view.progress import Meter
from anystep.view.story import end_lines, story_record, story_text
from anystep.view.tables import ORACLE, cost_rows, point_rows, text_table
from anystep.view.text import clipped, cost_line, counted, duration, figure, printable

__all__ = [
    "ORACLE",
    "Figure",
    "Live",
    "Measured",
    "Meter",
    "Section",
    "check_folder",
    "clipped",
    "cost_line",
    "cost_rows",
    "counted",
    "curve",
    "duration",
    "end_lines",
    "facts",
    "figure",
    "grid",
    "half_blocks",
    "levels",
    "levels_legend",
    "page",
    "png",
    "point_rows",
    "printable",
    "story_record",
    "story_text",
    "text_table",
    "write",
]
