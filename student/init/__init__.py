"""Making a student: random weights, a checkpoint, or layers of the teacher."""
