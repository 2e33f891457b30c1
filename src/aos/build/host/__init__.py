"""What steps borrow from the host for their time: names, proxies, indexes, mirrors, certificates, credentials.

Everything here reaches a sandbox as a mount or a variable of its process; nothing of it reaches a layer, the
history, or a cache key.
"""
