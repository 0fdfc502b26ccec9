"""What a device carries for its person and for friends: ciphertext, and halves of keys.

`store` keeps blobs on this disk, `holding` answers for them, `mirror` makes copies elsewhere,
`halves` keeps for others what opens their disks only together with something that is not here.
"""
