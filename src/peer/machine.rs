//! One peer's state: what is legal now, and what must be sent next.
