"""What an annotation and what is trained from it will cost, before any money is spent."""
