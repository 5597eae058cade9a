//! Parses the arguments, runs, and answers with an exit code.

fn main() {}
