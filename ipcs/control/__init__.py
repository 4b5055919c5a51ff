"""The service behind the command line, on the node's unix socket."""
