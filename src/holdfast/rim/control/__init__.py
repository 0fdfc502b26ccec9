"""Control stores: one small etcd-shaped interface, SQLite under it here, etcd when one machine is
not enough."""
