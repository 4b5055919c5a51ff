"""UnixFS: files and directories to DAGs of blocks, and back."""
