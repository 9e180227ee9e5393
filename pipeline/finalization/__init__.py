"""After all units are finished: records are gathered, and a snapshot is published."""
