//! The bounded queue of requests.
