"""Data sets: where they are found, how they are read, packed and handed over in batches."""
