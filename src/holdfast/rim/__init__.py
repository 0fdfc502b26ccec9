"""The world: clock, entropy, net, disk, cloud, and the adapters to other people's servers.

Only this floor and `crypto` read the time, draw randomness, sleep or open a socket.
"""
