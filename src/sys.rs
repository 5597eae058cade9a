//! Every unsafe line, one function for each system call.
