"""The libp2p host, and our own Noise and yamux inside it."""
