//! The 68 bytes that open a connection (BEP 3).
