"""ipcs: containerd meets IPFS, without the daemon.

General layout, lowest first; imports go down only and a linter holds that (pyproject.toml, `tool.importlinter`):

    block hashes cid errors config  values and the error tree
    store                        blocks on disk: LevelDB index, value log, references, collection
    bitswap | net                the exchange: pure engine and trio shell | the libp2p host, Noise, yamux
    blockservice                 store first, then exchange
    unixfs                       bytes to DAG and back: chunkers, dag-pb, importer, exporter, directories, CAR
    routing                      digest -> size, root, peers
    rpc                          the gRPC server on the unix socket
    content | control            containerd's content store | the service behind the command line
    node                         wires everything in one nursery
    cli                          arguments, printing, exit codes

Importing this package runs nothing and imports neither libp2p nor grpc.
"""

__version__ = "0.1.0"
