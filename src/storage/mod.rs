//! Content on disk: mappings, the answer to "would this block?", and the readers that may block.
