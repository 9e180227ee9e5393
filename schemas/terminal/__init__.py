"""Output on a terminal: console, progress bars, bar charts, formatting of numbers."""
