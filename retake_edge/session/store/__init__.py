"""Sessions on disk: the folder, its files, and the key of each."""
