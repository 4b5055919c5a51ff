"""gRPC on a unix socket: a server of our own, and the bridge from its threads into trio."""
