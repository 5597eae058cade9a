//! The loop. Owns mio, the slab of connections and every other part as plain fields.
