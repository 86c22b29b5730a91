"""HTTP/1.1 (RFC 9112): heads parsed strictly, bodies scanned for their end and relayed as received."""
