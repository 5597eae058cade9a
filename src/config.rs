//! The options, with their meaning and bounds.
