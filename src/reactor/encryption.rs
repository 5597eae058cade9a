//! The encryption handshakes (MSE) of connections: from the first foreign byte to the plain stream.
//!
//! The handshake itself is `mse`. Here is what it waits for: for its turn to exchange keys, since that
//! costs the loop 70 µs, and for the torrent that the peer has named.

use std::mem;

use super::connection::Connection;
use super::dial::Reached;
use super::shared::Shared;
use super::transport::Handshake;
use crate::choker::origin::Origin;
use crate::config::Encryption;
use crate::library::catalogue::lookup::{LoadError, ObfuscatedAnswer};
use crate::library::index::obfuscated::ObfuscatedHash;
use crate::metrics::Wire;
use crate::mse::dh::PRIVATE_LENGTH;
use crate::mse::dialling::{self, Dialling, Offer};
use crate::mse::receiving::{Allowed, Progress, Receiving};
use crate::mse::{Done, PADDING_MAX};
use crate::peer::close::CloseReason;
use crate::sys;
use crate::wire::handshake::PROTOCOL;
use crate::wire::message::InfoHash;
use crate::workers::QueueFull;

impl Connection {
    /// Takes the first bytes of a peer: a plain handshake, or a key.
    ///
    /// One key in 256 begins like a plain handshake, so its first byte decides nothing.
    pub(super) fn recognize(
        &mut self,
        received: &[u8],
        shared: &mut Shared,
    ) -> Result<(), CloseReason> {
        let mode = shared.process.encryption;
        let pairs = received.iter().zip(PROTOCOL);
        let alike = pairs
            .take_while(|(byte, expected)| byte == expected)
            .count();
        if alike == PROTOCOL.len() {
            if mode == Encryption::Require && self.dialled.is_none() {
                return Err(CloseReason::NotEncrypted);
            }
            self.set_wire(Wire::Plain, shared);
        } else if alike < received.len() && mode != Encryption::Off && self.dialled.is_none() {
            let handshake = Handshake::Receiving(Receiving::new());
            self.transport.begin_handshake(handshake);
            return self.take_handshake(received, shared);
        }
        self.take(received, shared)
    }

    fn set_wire(&mut self, wire: Wire, shared: &mut Shared) {
        self.transport.set_wire(wire);
        shared.counters.wires.add(wire);
    }

    /// Reads what the encryption handshake wants.
    pub(super) fn receive_handshake(&mut self, shared: &mut Shared) -> Result<(), CloseReason> {
        let handshake = self.transport.handshake();
        let wanted = handshake.expect("a handshake is under way").wanted();
        let mut buffer = mem::take(&mut shared.buffer);
        let room = buffer.get_mut(..wanted);
        let room = room.expect("a handshake wants less than the buffer holds");
        let outcome = match self.transport.receive(room) {
            Ok(Some(bytes)) => {
                let received = buffer.get(..bytes);
                let received = received.expect("a read fills no more than it is given");
                self.take_handshake(received, shared)
            }
            Ok(None) => Ok(()),
            Err(reason) => Err(reason),
        };
        shared.buffer = buffer;
        outcome
    }

    fn take_handshake(&mut self, received: &[u8], shared: &mut Shared) -> Result<(), CloseReason> {
        match self.transport.handshake() {
            Some(Handshake::Receiving(handshake)) => {
                let progress = handshake.receive(received, allowed(shared));
                self.advance(progress.map_err(CloseReason::EncryptionFailed)?, shared)
            }
            Some(Handshake::Dialling(_)) => self.take_answer(received, shared),
            None => unreachable!("a handshake is under way"),
        }
    }

    fn receiving(&mut self) -> &mut Receiving {
        match self.transport.handshake() {
            Some(Handshake::Receiving(handshake)) => handshake,
            _ => unreachable!("a peer has connected and waits in its handshake"),
        }
    }

    /// We have dialled this peer, and begin with a key.
    pub(super) fn begin_encryption(&mut self, shared: &mut Shared) -> Result<(), CloseReason> {
        let (dialling, key) = Dialling::new(private_key()?, &padding(shared));
        self.transport
            .begin_handshake(Handshake::Dialling(dialling));
        self.transport.push(&key);
        Ok(())
    }

    /// Takes what a peer answers that we have dialled. Our handshake is the initial payload.
    fn take_answer(&mut self, received: &[u8], shared: &mut Shared) -> Result<(), CloseReason> {
        let dialled = self.dialled.as_ref().expect("we have dialled the peer");
        let Some(Handshake::Dialling(handshake)) = self.transport.handshake() else {
            unreachable!("we have begun the handshake");
        };
        let offer = Offer {
            info_hash: &dialled.info_hash,
            plaintext: shared.process.encryption != Encryption::Require,
            payload: self.session.poll_transmit().control,
        };
        let mut bytes = Vec::new();
        let progress = handshake.receive(received, &offer, &mut bytes);
        let progress = progress.map_err(CloseReason::EncryptionFailed)?;
        if !bytes.is_empty() {
            let payload = offer.payload.len();
            self.transport.push(&bytes);
            self.session.sent(payload, false, shared.now);
        }
        match progress {
            dialling::Progress::Bytes => Ok(()),
            dialling::Progress::Done(done) => self.encrypted(done, shared),
        }
    }

    /// How far a connection came that we have dialled.
    pub(super) fn reached(&mut self, was_open: bool) -> Reached {
        let wire = self.transport.wire();
        match (was_open, wire, self.transport.handshake()) {
            (true, ..) => Reached::Open,
            (_, Some(_), _) => Reached::Stream,
            (_, _, Some(Handshake::Dialling(handshake))) if handshake.has_key() => Reached::Keys,
            _ => Reached::Nothing,
        }
    }

    /// The encryption handshake is complete.
    fn encrypted(&mut self, done: Done, shared: &mut Shared) -> Result<(), CloseReason> {
        let wire = match done.ciphers {
            Some(_) => Wire::Rc4,
            None => Wire::MsePlaintext,
        };
        self.transport.end_handshake(done.ciphers);
        self.set_wire(wire, shared);
        self.take(&done.received, shared)
    }

    /// Does what the encryption handshake waits for.
    fn advance(&mut self, progress: Progress, shared: &mut Shared) -> Result<(), CloseReason> {
        match progress {
            Progress::Bytes => Ok(()),
            Progress::KeyReceived => {
                let origin = Origin::of(self.transport.address());
                shared.key_exchanges.push(origin.network(), self.key);
                Ok(())
            }
            Progress::TorrentWanted(hash) => {
                let process = &mut shared.process;
                match process.library.find_obfuscated(&ObfuscatedHash(hash)) {
                    ObfuscatedAnswer::Unknown => Err(CloseReason::UnknownTorrent),
                    ObfuscatedAnswer::Known(info_hash) => self.torrent_found(&info_hash, shared),
                    ObfuscatedAnswer::Query(query) => {
                        let requested = process.loads.name(self.key, query);
                        requested.map_err(|QueueFull| CloseReason::AtCapacity)
                    }
                }
            }
            Progress::Done(done, answer) => {
                // It goes with our handshake if theirs has come, else at once.
                self.transport.push(&answer);
                self.encrypted(done, shared)
            }
        }
    }

    /// Answers the peer's key with ours. It costs more than all else in a handshake.
    pub(super) fn exchange_keys(&mut self, shared: &mut Shared) -> Result<(), CloseReason> {
        if self.transport.is_read_closed() {
            return Err(CloseReason::PeerClosed);
        }
        let (private, padding) = (private_key()?, padding(shared));
        let key = self.receiving().exchange(private, &padding);
        shared.counters.keys_exchanged += 1;
        self.transport.push(&key);
        self.flush(shared)
    }

    /// The index was read for the torrent that the peer has named.
    pub(super) fn torrent_named(
        &mut self,
        found: Result<Option<InfoHash>, LoadError>,
        shared: &mut Shared,
    ) -> Result<(), CloseReason> {
        match found {
            Ok(Some(info_hash)) => self.torrent_found(&info_hash, shared),
            Ok(None) => Err(CloseReason::UnknownTorrent),
            Err(LoadError::Busy(_)) => Err(CloseReason::AtCapacity),
            Err(error) => {
                log::warn!("not served: {error}");
                Err(CloseReason::UnknownTorrent)
            }
        }
    }

    fn torrent_found(
        &mut self,
        info_hash: &InfoHash,
        shared: &mut Shared,
    ) -> Result<(), CloseReason> {
        let progress = self.receiving().torrent_found(info_hash, allowed(shared));
        self.advance(progress.map_err(CloseReason::EncryptionFailed)?, shared)
    }
}

/// A private key, which is forgotten after one handshake.
fn private_key() -> Result<[u8; PRIVATE_LENGTH], CloseReason> {
    let mut private = [0; PRIVATE_LENGTH];
    sys::fill_random(&mut private).map_err(|error| {
        log::error!("no random bytes for a key: {error}");
        CloseReason::AtCapacity
    })?;
    Ok(private)
}

/// It hides the length of a key, and is no secret.
fn padding(shared: &mut Shared) -> Vec<u8> {
    let mut padding = vec![0; shared.random.usize(..=PADDING_MAX)];
    shared.random.fill(&mut padding);
    padding
}

fn allowed(shared: &Shared) -> Allowed {
    match shared.process.encryption {
        Encryption::Require => Allowed::Rc4,
        Encryption::Accept | Encryption::Off => Allowed::Both,
    }
}
