//! Block to file extents.
