"""How far a student is from its teacher and from the text."""
