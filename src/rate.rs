//! The global upload limit, a token bucket.
