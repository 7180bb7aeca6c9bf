"""CSIL-RPC, the protocol of Corndogs 0.7: CBOR messages over TCP."""
