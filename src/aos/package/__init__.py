"""The AAP: a runnable OCI image whose facts are all in the signed image itself.

    Package          one package, or an image that AOS did not build
    load_package     content store + manifest digest -> Package, checked
    assemble         definition + layers -> config and manifest in the content store -> Package
    write_layout     Package -> directory: OCI layout + manifest.json, layers.json, signature.json
    write_archive    the same as a tar
    read_layout      directory or archive -> content store; sidecars refused where they differ
    verify_package   hash everything again
    package_children what a blob refers to, for garbage collection

The format is docs/package.md.
"""

from __future__ import annotations

from aos.package.assemble import assemble
from aos.package.facts import (
    LABEL_DEFINITION,
    LABEL_LAYERS,
    LABEL_NAME,
    LABEL_VERSION,
    BuiltLayer,
    LayerFacts,
    Package,
    layer_facts,
)
from aos.package.load import load_package
from aos.package.read import read_layout
from aos.package.references import package_children
from aos.package.verify import Check, verify_package
from aos.package.write import write_archive, write_layout

__all__ = [
    "LABEL_DEFINITION",
    "LABEL_LAYERS",
    "LABEL_NAME",
    "LABEL_VERSION",
    "BuiltLayer",
    "Check",
    "LayerFacts",
    "Package",
    "assemble",
    "layer_facts",
    "load_package",
    "package_children",
    "read_layout",
    "verify_package",
    "write_archive",
    "write_layout",
]
