"""The AAP: a runnable OCI image whose facts are all in the signed image itself.

Public surface (this file re-exports it):

    Package          frozen value: reference-free facts of one package
    load_package     (blobs, manifest digest) -> Package, verified
    write_layout     Package + blobs -> directory: OCI layout + manifest.json, layers.json, signature.json
    read_layout      directory or archive -> blobs + Package; sidecars refused on mismatch
    assemble         definition + layers + history -> config and manifest blobs -> Package
"""
