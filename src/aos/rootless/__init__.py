"""AOS for an ordinary user: everything that makes layers or sandboxes runs inside one user namespace of that user's.

Inside, the user is root, and has the ids of /etc/subuid and /etc/subgid besides: owners in layers, mounts, overlays and
the OCI runtime are what they are for root, so that no other room has a second way of doing things.

user.py        who we are: imported by whoever needs to know, builtins only
ranges.py      which ids the user may have
delegation.py  which control groups the user may make
namespace.py   making the namespace, and going into it
"""
