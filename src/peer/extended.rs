//! The extension protocol of one peer (BEP 9, 10, 21), and the metadata that it waits for.
//!
//! Choked peers are answered too: without the info dictionary no peer can request a block.

use std::collections::VecDeque;

use super::close::CloseReason;
use crate::torrent::layout::Shape;
use crate::wire::extension::{self, MetadataMessage};

/// Pieces of 16 KiB that may wait, beyond the ones being read. Clients that request the whole
/// dictionary at once give up when a part is refused, so this covers dictionaries of 16 MiB.
const WAITING_LIMIT: usize = 1024;

/// How often a peer may have each piece of the dictionary, on average. An answer is a thousand times
/// as long as its request, and choked peers get it too, outside of all fairness; BEP 9 proposes such
/// a bound. More than once, since a client that finds its copy damaged starts over.
const PROMISES_FOR_EACH_PIECE: u32 = 4;

/// Pieces being read at a time for one peer: each becomes 16 KiB in its control buffer.
const READING_LIMIT: u8 = 1;

/// The pieces that one peer waits for. It exists only while there are any.
#[derive(Debug, Default)]
struct MetadataQueue {
    waiting: VecDeque<u32>,
    reading: u8,
}

impl MetadataQueue {
    /// Adds a piece; false when too many wait.
    fn push(&mut self, piece: u32) -> bool {
        let room = self.waiting.len() < WAITING_LIMIT;
        if room {
            self.waiting.push_back(piece);
        }
        room
    }

    /// Returns true if [`MetadataQueue::poll`] has a piece.
    fn is_ready(&self) -> bool {
        self.reading < READING_LIMIT && !self.waiting.is_empty()
    }

    /// The next piece to read, unless enough are being read.
    fn poll(&mut self) -> Option<u32> {
        if !self.is_ready() {
            return None;
        }
        self.reading += 1;
        self.waiting.pop_front()
    }

    /// A piece was read, or cannot be.
    fn answered(&mut self) {
        self.reading = self
            .reading
            .checked_sub(1)
            .expect("only polled pieces are answered");
    }

    fn is_empty(&self) -> bool {
        self.reading == 0 && self.waiting.is_empty()
    }
}

/// What one peer said by the extension protocol.
#[derive(Debug, Default)]
pub(super) struct Extended {
    queue: Option<Box<MetadataQueue>>,
    /// Pieces of the info dictionary that the peer was promised, those it has included.
    promised: u32,
    /// The message id that the peer chose for `ut_metadata`; zero for none (BEP 10).
    ut_metadata: u8,
}

impl Extended {
    /// Handles a message of the extension protocol, and appends answers to `out`. Returns true if a
    /// piece of the info dictionary was requested. An error ends the connection.
    pub(super) fn handle_message(
        &mut self,
        id: u8,
        payload: &[u8],
        shape: &Shape,
        out: &mut Vec<u8>,
    ) -> Result<bool, CloseReason> {
        match id {
            extension::HANDSHAKE_ID => {
                // Clients exist whose dictionary is malformed and whose requests are not.
                let Ok(theirs) = extension::parse_handshake(payload) else {
                    return Ok(false);
                };
                // A later dictionary leaves out what has not changed.
                self.ut_metadata = theirs.ut_metadata.unwrap_or(self.ut_metadata);
                match theirs.upload_only {
                    true => Err(CloseReason::PeerUploadOnly),
                    false => Ok(false),
                }
            }
            extension::OUR_UT_METADATA => {
                let message = extension::parse_metadata(payload)
                    .map_err(|_| CloseReason::IllegalMessage("malformed ut_metadata"))?;
                Ok(match message {
                    MetadataMessage::Request { piece } => self.request(piece, shape, out),
                    _ => false,
                })
            }
            extension::OUR_UPLOAD_ONLY if extension::parse_upload_only(payload) => {
                Err(CloseReason::PeerUploadOnly)
            }
            _ => Ok(false),
        }
    }

    fn request(&mut self, piece: u32, shape: &Shape, out: &mut Vec<u8>) -> bool {
        if self.ut_metadata == 0 {
            // The peer has not said under which id it expects the answer.
            return false;
        }
        let pieces = shape
            .metadata_length
            .div_ceil(extension::METADATA_PIECE_LENGTH);
        let promises_max = pieces.saturating_mul(PROMISES_FOR_EACH_PIECE);
        if piece < pieces
            && self.promised < promises_max
            && self.queue.get_or_insert_default().push(piece)
        {
            self.promised += 1;
            return true;
        }
        extension::metadata_reject(out, self.ut_metadata, piece);
        false
    }

    /// Returns true if [`Extended::poll_metadata`] has a piece.
    pub(super) fn wants_metadata(&self) -> bool {
        let queue = self.queue.as_ref();
        queue.is_some_and(|queue| queue.is_ready())
    }

    /// The next piece of the info dictionary to read for the peer, if any.
    pub(super) fn poll_metadata(&mut self) -> Option<u32> {
        self.queue.as_mut()?.poll()
    }

    /// Answers with a piece that [`Extended::poll_metadata`] gave out: its bytes, or None when it
    /// could not be read.
    pub(super) fn handle_metadata(
        &mut self,
        piece: u32,
        shape: &Shape,
        body: Option<&[u8]>,
        out: &mut Vec<u8>,
    ) {
        let queue = self.queue.as_mut();
        let queue = queue.expect("the queue stays while pieces are being read");
        queue.answered();
        if queue.is_empty() {
            self.queue = None;
        }
        if self.ut_metadata == 0 {
            // The peer has disabled it since.
            return;
        }
        match body {
            Some(body) => {
                let length = u32::try_from(body.len()).expect("a piece has at most 16 KiB");
                let total = shape.metadata_length;
                extension::metadata_data_header(out, self.ut_metadata, piece, total, length);
                out.extend_from_slice(body);
            }
            None => extension::metadata_reject(out, self.ut_metadata, piece),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{SHAPE, open_peer, take_control};
    use super::super::machine::{Effect, Peer};
    use super::*;
    use crate::wire::message::Message;

    #[test]
    fn few_are_read_at_a_time_and_in_order() {
        let mut queue = MetadataQueue::default();
        for piece in 5..9 {
            assert!(queue.push(piece));
        }
        assert_eq!((queue.poll(), queue.poll()), (Some(5), None));
        queue.answered();
        assert_eq!((queue.poll(), queue.poll()), (Some(6), None));
        queue.answered();
        assert_eq!((queue.poll(), queue.poll()), (Some(7), None));
    }

    #[test]
    fn a_dictionary_of_16_mib_may_be_asked_for_at_once_and_no_more() {
        let mut queue = MetadataQueue::default();
        for piece in 0..1024 {
            assert!(queue.push(piece));
        }
        assert!(!queue.push(1024));
    }

    #[test]
    fn it_is_empty_only_when_every_answer_is_in() {
        let mut queue = MetadataQueue::default();
        assert!(queue.is_empty());
        queue.push(0);
        assert!(!queue.is_empty());
        queue.poll();
        assert!(!queue.is_empty());
        queue.answered();
        assert!(queue.is_empty());
    }

    const METADATA: &[u8] = b"d1:md11:ut_metadatai7eee";

    fn metadata_request(piece: u32) -> Vec<u8> {
        format!("d8:msg_typei0e5:piecei{piece}ee").into_bytes()
    }

    fn extended(peer: &mut Peer, id: u8, payload: &[u8]) -> Result<Effect, CloseReason> {
        peer.handle_message(&Message::Extended { id, payload }, &SHAPE)
    }

    fn ask(peer: &mut Peer, piece: u32) -> Effect {
        extended(peer, 1, &metadata_request(piece)).unwrap()
    }

    fn rejected(piece: u32) -> Vec<u8> {
        let mut out = Vec::new();
        extension::metadata_reject(&mut out, 7, piece);
        out
    }

    #[test]
    fn a_peer_that_only_uploads_is_closed_whichever_way_it_says_so() {
        let mut peer = open_peer(true);
        let says = extended(&mut peer, 0, b"d11:upload_onlyi0ee");
        assert_eq!(says, Ok(Effect::None));
        let says = extended(&mut peer, 0, b"d11:upload_onlyi1ee");
        assert_eq!(says, Err(CloseReason::PeerUploadOnly));
        let mut peer = open_peer(true);
        assert_eq!(extended(&mut peer, 2, &[0]), Ok(Effect::None));
        let says = extended(&mut peer, 2, &[1]);
        assert_eq!(says, Err(CloseReason::PeerUploadOnly));
    }

    #[test]
    fn metadata_is_read_and_answered_under_the_number_the_peer_gave() {
        let mut peer = open_peer(true);
        extended(&mut peer, 0, METADATA).unwrap();
        assert_eq!(ask(&mut peer, 1), Effect::MetadataRequested);
        assert_eq!(peer.poll_metadata(), Some(1));
        assert_eq!(peer.poll_metadata(), None);
        peer.handle_metadata(1, &SHAPE, Some(b"body"));
        let mut expected = Vec::new();
        extension::metadata_data_header(&mut expected, 7, 1, SHAPE.metadata_length, 4);
        expected.extend_from_slice(b"body");
        assert_eq!(take_control(&mut peer), expected);
        assert!(!peer.wants_metadata());
    }

    #[test]
    fn metadata_that_is_not_or_cannot_be_read_is_rejected() {
        let mut peer = open_peer(true);
        extended(&mut peer, 0, METADATA).unwrap();
        let pieces = SHAPE.metadata_length.div_ceil(16 * 1024);
        assert_eq!(ask(&mut peer, pieces), Effect::None);
        assert_eq!(take_control(&mut peer), rejected(pieces));
        assert_eq!(ask(&mut peer, pieces - 1), Effect::MetadataRequested);
        assert_eq!(peer.poll_metadata(), Some(pieces - 1));
        peer.handle_metadata(pieces - 1, &SHAPE, None);
        assert_eq!(take_control(&mut peer), rejected(pieces - 1));
    }

    #[test]
    fn a_flood_of_metadata_requests_is_rejected_beyond_the_bound() {
        let shape = Shape {
            metadata_length: 16 << 20,
            ..SHAPE
        };
        let mut peer = open_peer(true);
        extended(&mut peer, 0, METADATA).unwrap();
        let mut ask = || {
            let payload = metadata_request(0);
            let message = Message::Extended {
                id: 1,
                payload: &payload,
            };
            peer.handle_message(&message, &shape).unwrap()
        };
        for _ in 0..WAITING_LIMIT {
            assert_eq!(ask(), Effect::MetadataRequested);
        }
        assert_eq!(ask(), Effect::None);
        assert_eq!(take_control(&mut peer), rejected(0));
    }

    #[test]
    fn the_dictionary_is_given_a_few_times_and_no_more() {
        let mut peer = open_peer(true);
        extended(&mut peer, 0, METADATA).unwrap();
        for _ in 0..4 {
            for piece in 0..3 {
                assert_eq!(ask(&mut peer, piece), Effect::MetadataRequested);
                assert_eq!(peer.poll_metadata(), Some(piece));
                peer.handle_metadata(piece, &SHAPE, Some(b"body"));
                take_control(&mut peer);
            }
        }
        assert_eq!(ask(&mut peer, 0), Effect::None);
        assert_eq!(take_control(&mut peer), rejected(0));
    }

    #[test]
    fn no_metadata_is_read_while_the_answers_are_not_taken() {
        let mut peer = open_peer(true);
        extended(&mut peer, 0, METADATA).unwrap();
        for _ in 0..12 {
            ask(&mut peer, 0);
        }
        let mut answered = 0;
        while let Some(piece) = peer.poll_metadata() {
            peer.handle_metadata(piece, &SHAPE, Some(&[0; 16 * 1024]));
            answered += 1;
        }
        assert_eq!(answered, 1);
        take_control(&mut peer);
        assert!(peer.poll_metadata().is_some());
    }

    #[test]
    fn malformed_metadata_messages_end_the_peer_and_a_malformed_handshake_does_not() {
        let mut peer = open_peer(true);
        assert_eq!(ask(&mut peer, 0), Effect::None, "it has given no number");
        assert_eq!(extended(&mut peer, 0, b"i1e"), Ok(Effect::None));
        extended(&mut peer, 0, METADATA).unwrap();
        extended(&mut peer, 0, b"de").unwrap();
        assert_eq!(ask(&mut peer, 0), Effect::MetadataRequested);
        let says = extended(&mut peer, 1, b"d8:msg_typei1e5:piecei0ee");
        assert_eq!(says, Ok(Effect::None));
        let says = extended(&mut peer, 1, b"i1e");
        assert!(matches!(says, Err(CloseReason::IllegalMessage(_))));
    }
}
