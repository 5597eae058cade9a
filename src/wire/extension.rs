//! The dictionaries of the extension protocol (BEP 9, 10, 21).
