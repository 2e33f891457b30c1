"""How sandboxes reach the network, and what of it they may reach.

rules.py, policy.py, addresses.py    pure: words of a policy, what they mean, the pool of addresses
protocol.py                          the seam: Network
bridge.py, lease.py, refusals.py     Network with a bridge of the kernel: effects and their records
links.py, firewall.py                what the bridge network says to the kernel
user.py                              the same for an ordinary user
netlink.py, nftables.py              how it is said
"""
