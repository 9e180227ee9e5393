"""The teacher: loading a language model, packing text into windows, and reading its distributions."""
