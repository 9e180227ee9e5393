"""Where a student's first weights come from: a config, a checkpoint, or layers of the teacher."""
