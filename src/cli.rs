//! Arguments to configuration.
