"""Embedded collector: OTLP in, a bounded *store* of *traces* and their *spans*, Jaeger's query API v3 and a page out."""
