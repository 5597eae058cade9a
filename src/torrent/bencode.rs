//! What bendy does not do: unsorted keys, and the raw span of a value.
