"""OCI images as files: layouts on disk and in tars."""
