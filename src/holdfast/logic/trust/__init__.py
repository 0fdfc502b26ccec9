"""Trust: joining, certificate life, revocation, adoption of records, Merkle trees."""
