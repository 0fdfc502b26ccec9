"""How devices of friends speak with each other, by whatever path there is.

`channel` is the port: frames in order between two who meet. `pairing` is spoken over it, `letters`
are single requests and answers. Finding each other, port windows and relaying plug in here as more
ways to make a channel.
"""
