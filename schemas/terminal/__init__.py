"""What a person sees in a terminal: console, progress bars, bars, formatting of figures."""
