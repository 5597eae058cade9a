//! Where the messages of a seeder begin, and their ids: bodies are passed over.

/// Bytes of a handshake.
const HANDSHAKE: usize = 68;

pub(crate) const CHOKE: u8 = 0;
pub(crate) const UNCHOKE: u8 = 1;

/// What has come of the current message.
#[derive(Debug)]
pub(crate) struct Frames {
    /// Bytes of a body, or of the handshake, that are still to come.
    skip: usize,
    /// The length of a message and its id.
    header: [u8; 5],
    have: usize,
}

impl Frames {
    /// Before the handshake.
    pub(crate) fn new() -> Frames {
        Frames {
            skip: HANDSHAKE,
            header: [0; 5],
            have: 0,
        }
    }

    /// Calls `seen` with the id of each message that begins in these bytes.
    pub(crate) fn read(&mut self, mut bytes: &[u8], mut seen: impl FnMut(u8)) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.skip > 0 {
                let passed = self.skip.min(bytes.len());
                self.skip -= passed;
                bytes = &bytes[passed..];
                continue;
            }
            self.header[self.have] = *first;
            self.have += 1;
            bytes = rest;
            let [length @ .., id] = self.header;
            let length = u32::from_be_bytes(length) as usize;
            if self.have == 4 && length == 0 {
                self.have = 0;
            } else if self.have == 5 {
                self.have = 0;
                self.skip = length - 1;
                seen(id);
            }
        }
    }
}
