"""DNS: the embedded authoritative server and the zone it answers from."""
