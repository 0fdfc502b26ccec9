"""Keys, sealing, certificates, secret sharing: thin over `cryptography`. `pure` is world-free."""
