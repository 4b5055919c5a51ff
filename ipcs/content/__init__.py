"""containerd's content store over the blockstore: a library, its gRPC face, and adoption from peers."""
