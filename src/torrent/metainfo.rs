//! What a metainfo file says (BEP 3, 12, 27, 47).
