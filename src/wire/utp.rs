//! Enough of uTP (BEP 29) to refuse it at once.
