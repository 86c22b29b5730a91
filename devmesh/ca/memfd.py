"""A private key's way into `ssl` without a file system."""

import os
import ssl


def load_pair(context: ssl.SSLContext, certificate_chain: str, private_key: str) -> None:
    """Give the context this certificate and key; new handshakes use them, established connections keep theirs."""
    descriptor = os.memfd_create("svid", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb") as file:
        file.write((private_key + certificate_chain).encode())
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
