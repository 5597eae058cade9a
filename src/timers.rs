//! Deadlines: the time as a value, each connection's time-outs, and the wheel that finds them.
