//! Framing: received bytes to messages.
