//! Handshakes with a peer that follows the specification, and with peers that do not.

use super::super::dialling::{self, Dialling, Offer};
use super::*;

const TORRENT: InfoHash = InfoHash([5; 20]);

/// What a peer may do in its own way.
#[derive(Clone, Copy)]
struct Peer<'a> {
    padding: &'a [u8],
    provided: u32,
    more_padding: usize,
    payload: &'a [u8],
    /// What it says in the place of the payload's length.
    payload_length: Option<u16>,
    verification: [u8; 8],
    /// Sent behind the payload, before our answer.
    behind: &'a [u8],
}

impl Peer<'_> {
    const USUAL: Self = Self {
        padding: &[9; 100],
        provided: PLAINTEXT | RC4,
        more_padding: 0,
        payload: b"its handshake",
        payload_length: None,
        verification: VERIFICATION,
        behind: b"",
    };

    /// What the peer sends behind the keys.
    fn offer(&self, shared: &Shared) -> Vec<u8> {
        let mut bytes = self.padding.to_vec();
        bytes.extend(synchronization(shared));
        let masked = TORRENT.obfuscated().into_iter().zip(mask(shared));
        bytes.extend(masked.map(|(byte, mask)| byte ^ mask));
        let mut plain = self.verification.to_vec();
        plain.extend(self.provided.to_be_bytes());
        let length = |length: usize| u16::try_from(length).unwrap();
        plain.extend(length(self.more_padding).to_be_bytes());
        plain.extend(vec![7; self.more_padding]);
        let payload = self.payload_length.unwrap_or(length(self.payload.len()));
        plain.extend(payload.to_be_bytes());
        plain.extend(self.payload);
        if self.provided & PLAINTEXT == 0 {
            plain.extend(self.behind);
        }
        Cipher::of_dialling_side(shared, &TORRENT).apply(&mut plain);
        bytes.extend(plain);
        if self.provided & PLAINTEXT != 0 {
            bytes.extend(self.behind);
        }
        bytes
    }
}

/// Hands in bytes as they are wanted, at most `step` at once, and does what is asked. Returns what the
/// peer is to be sent.
fn feed(
    receiving: &mut Receiving,
    bytes: &mut &[u8],
    step: usize,
    allowed: Allowed,
) -> Result<(Progress, Vec<[u8; 20]>), MseError> {
    let mut wanted = Vec::new();
    loop {
        let count = receiving.wanted().min(step).min(bytes.len());
        let (now, rest) = bytes.split_at(count);
        *bytes = rest;
        let mut progress = receiving.receive(now, allowed)?;
        if let Progress::TorrentWanted(hash) = progress {
            assert_eq!(
                receiving.wanted(),
                0,
                "nothing is read while it is looked up"
            );
            wanted.push(hash);
            progress = receiving.torrent_found(&TORRENT, allowed)?;
        }
        if count == 0 || !matches!(progress, Progress::Bytes) {
            return Ok((progress, wanted));
        }
    }
}

/// The keys are exchanged. Returns the secret.
fn exchanged(receiving: &mut Receiving) -> Shared {
    let theirs = PrivateKey::new([3; 20]);
    let (progress, _) = feed(receiving, &mut &theirs.public()[..], 1000, Allowed::Both).unwrap();
    assert!(matches!(progress, Progress::KeyReceived));
    assert_eq!(
        receiving.wanted(),
        0,
        "nothing is read before it is admitted"
    );
    let answer = receiving.exchange([4; 20], &[1, 2, 3]);
    assert_eq!(answer.len(), KEY_LENGTH + 3);
    assert_eq!(&answer[KEY_LENGTH..], &[1, 2, 3]);
    theirs.shared(&PublicKey::new(answer.first_chunk().unwrap()).unwrap())
}

/// A whole handshake. Returns its end, our answer as the peer deciphers it, and the peer's streams
/// behind it.
fn complete(
    peer: Peer<'_>,
    step: usize,
    allowed: Allowed,
) -> Result<(Done, [u8; ANSWER], Ciphers), MseError> {
    let mut receiving = Receiving::new();
    let shared = exchanged(&mut receiving);
    let bytes = peer.offer(&shared);
    let mut rest = bytes.as_slice();
    let (progress, wanted) = feed(&mut receiving, &mut rest, step, allowed)?;
    assert_eq!(wanted, [TORRENT.obfuscated()]);
    let Progress::Done(done, mut answer) = progress else {
        panic!("{progress:?} in {receiving:?}");
    };
    let mut ciphers = Ciphers {
        receive: Cipher::of_receiving_side(&shared, &TORRENT),
        send: Cipher::of_dialling_side(&shared, &TORRENT),
    };
    ciphers.receive.apply(&mut answer);
    ciphers.send.apply(&mut vec![
        0;
        bytes.len() - peer.padding.len() - 40 - rest.len()
    ]);
    Ok((done, answer, ciphers))
}

fn fails(peer: Peer<'_>) -> MseError {
    let end = complete(peer, 1000, Allowed::Both);
    let error = end.map(|_| ()).unwrap_err();
    let cut = complete(peer, 1, Allowed::Both);
    assert_eq!(cut.map(|_| ()).unwrap_err(), error);
    error
}

#[test]
fn bytes_may_be_cut_anywhere() {
    for provided in [PLAINTEXT | RC4, RC4] {
        let peer = Peer {
            provided,
            more_padding: 33,
            ..Peer::USUAL
        };
        for step in 1..200 {
            let (done, _, _) = complete(peer, step, Allowed::Both).unwrap();
            assert_eq!(done.received, b"its handshake");
        }
    }
}

#[test]
fn exactly_one_method_is_selected_and_plain_text_if_it_may_be() {
    let select = |provided, allowed| {
        let peer = Peer {
            provided,
            ..Peer::USUAL
        };
        let (done, answer, _) = complete(peer, 1000, allowed).unwrap();
        assert_eq!(answer[..8], VERIFICATION);
        assert_eq!(answer[12..], [0, 0], "no padding");
        let selected = u32::from_be_bytes(*answer[8..].first_chunk().unwrap());
        assert_eq!(done.ciphers.is_some(), selected == RC4);
        selected
    };
    assert_eq!(select(PLAINTEXT, Allowed::Both), PLAINTEXT);
    assert_eq!(select(RC4, Allowed::Both), RC4);
    assert_eq!(select(PLAINTEXT | RC4, Allowed::Both), PLAINTEXT);
    // Bits that nobody has defined may stand beside them.
    assert_eq!(select(0xffff_ffff, Allowed::Both), PLAINTEXT);
    assert_eq!(select(0xffff_fff0 | RC4, Allowed::Both), RC4);
    assert_eq!(select(PLAINTEXT | RC4, Allowed::Rc4), RC4);
}

#[test]
fn without_a_method_that_is_allowed_the_handshake_ends() {
    for provided in [0, 4, 0xffff_fffc] {
        let peer = Peer {
            provided,
            ..Peer::USUAL
        };
        assert_eq!(fails(peer), MseError::NoCommonMethod);
    }
    let plain_only = Peer {
        provided: PLAINTEXT,
        ..Peer::USUAL
    };
    let end = complete(plain_only, 1000, Allowed::Rc4);
    assert_eq!(end.map(|_| ()).unwrap_err(), MseError::NoCommonMethod);
}

#[test]
fn the_payload_is_enciphered_and_what_follows_it_as_selected() {
    for provided in [PLAINTEXT, RC4] {
        let peer = Peer {
            provided,
            behind: b" and more",
            ..Peer::USUAL
        };
        let (done, _, theirs) = complete(peer, 1000, Allowed::Both).unwrap();
        assert_eq!(done.received, b"its handshake and more");
        match done.ciphers {
            Some(ours) => go_on(*ours, theirs),
            None => assert_eq!(provided, PLAINTEXT),
        }
    }
}

#[test]
fn without_a_payload_the_answer_waits_for_nothing() {
    let peer = Peer {
        payload: b"",
        ..Peer::USUAL
    };
    let (done, _, _) = complete(peer, 1, Allowed::Both).unwrap();
    assert!(done.received.is_empty());
}

#[test]
fn padding_of_512_bytes_is_the_longest() {
    for length in [0, 1, 511, 512] {
        let peer = Peer {
            padding: &vec![9; length],
            more_padding: length,
            payload: &vec![8; length],
            ..Peer::USUAL
        };
        for step in [1, 7, 1000] {
            let (done, _, _) = complete(peer, step, Allowed::Both).unwrap();
            assert_eq!(done.received.len(), length);
        }
    }
    let padded = Peer {
        padding: &[9; 513],
        ..Peer::USUAL
    };
    assert_eq!(fails(padded), MseError::NoSynchronization);
    let more = Peer {
        more_padding: 513,
        ..Peer::USUAL
    };
    assert_eq!(fails(more), MseError::PaddingTooLong);
    for length in [513, 65_535] {
        let long = Peer {
            payload_length: Some(length),
            ..Peer::USUAL
        };
        assert_eq!(fails(long), MseError::PayloadTooLong);
    }
}

#[test]
fn the_end_of_the_padding_may_lie_in_padding_that_looks_like_it() {
    let mut receiving = Receiving::new();
    let shared = exchanged(&mut receiving);
    let end = synchronization(&shared);
    let mut like = end[..19].to_vec();
    like.extend(&end[..7]);
    let peer = Peer {
        padding: &like,
        ..Peer::USUAL
    };
    let bytes = peer.offer(&shared);
    let (progress, _) = feed(&mut receiving, &mut &bytes[..], 1, Allowed::Both).unwrap();
    assert!(matches!(progress, Progress::Done(..)));
}

#[test]
fn another_info_hash_is_found_out() {
    let peer = Peer {
        verification: [0, 0, 0, 0, 0, 0, 0, 1],
        ..Peer::USUAL
    };
    assert_eq!(fails(peer), MseError::BadVerification);
}

#[test]
fn a_weak_key_is_refused_before_ours_is_sent() {
    let mut one = [0; KEY_LENGTH];
    one[KEY_LENGTH - 1] = 1;
    for weak in [[0; KEY_LENGTH], one, [0xff; KEY_LENGTH]] {
        let refused = Receiving::new().receive(&weak, Allowed::Both);
        assert_eq!(refused.map(|_| ()).unwrap_err(), MseError::WeakKey);
    }
}

#[test]
fn little_is_held_of_a_peer_that_says_nothing_useful() {
    let mut receiving = Receiving::new();
    exchanged(&mut receiving);
    let mut taken = 0;
    let error = loop {
        assert!(receiving.wanted() > 0);
        match receiving.receive(&[0], Allowed::Both) {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((error, taken), (MseError::NoSynchronization, 531));
    assert_eq!(receiving.wanted(), 0);
}

/// Both sides of ours, with bytes cut anywhere and keys of every shape.
#[test]
fn both_sides_agree() {
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..600 {
        let bytes = |random: &mut fastrand::Rng, length| -> Vec<u8> {
            (0..length).map(|_| random.u8(..)).collect()
        };
        let plaintext = random.bool();
        let offer = Offer {
            info_hash: &TORRENT,
            plaintext,
            payload: &bytes(&mut random, [0, 68][round % 2]),
        };
        let key = std::array::from_fn(|_| random.u8(..));
        let padding_length = random.usize(..=PADDING_MAX);
        let (mut dialling, mut to_us) = Dialling::new(key, &bytes(&mut random, padding_length));
        let mut receiving = Receiving::new();
        let mut to_them = Vec::new();
        let (mut ours, mut theirs) = (None, None);
        while ours.is_none() || theirs.is_none() {
            let count = receiving
                .wanted()
                .min(to_us.len())
                .min(random.usize(1..300));
            let now: Vec<u8> = to_us.drain(..count).collect();
            if ours.is_none() {
                match receiving.receive(&now, Allowed::Both).unwrap() {
                    Progress::Bytes => {}
                    Progress::KeyReceived => {
                        let key = std::array::from_fn(|_| random.u8(..));
                        let length = random.usize(..=PADDING_MAX);
                        to_them.extend(receiving.exchange(key, &bytes(&mut random, length)));
                    }
                    Progress::TorrentWanted(hash) => {
                        assert_eq!(hash, TORRENT.obfuscated());
                        match receiving.torrent_found(&TORRENT, Allowed::Both).unwrap() {
                            Progress::Done(done, answer) => {
                                to_them.extend(answer);
                                ours = Some(done);
                            }
                            progress => assert!(matches!(progress, Progress::Bytes)),
                        }
                    }
                    Progress::Done(done, answer) => {
                        to_them.extend(answer);
                        ours = Some(done);
                    }
                }
            }
            let count = dialling
                .wanted()
                .min(to_them.len())
                .min(random.usize(1..300));
            let now: Vec<u8> = to_them.drain(..count).collect();
            if theirs.is_none()
                && let dialling::Progress::Done(done) =
                    dialling.receive(&now, &offer, &mut to_us).unwrap()
            {
                theirs = Some(done);
            }
        }
        let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
        assert_eq!(ours.received, offer.payload);
        assert!(theirs.received.is_empty() && to_us.is_empty() && to_them.is_empty());
        assert_eq!(ours.ciphers.is_none(), plaintext);
        if let (Some(ours), Some(theirs)) = (ours.ciphers, theirs.ciphers) {
            go_on(*ours, *theirs);
        }
    }
}

/// Both streams go on where the handshake ends.
fn go_on(mut ours: Ciphers, mut theirs: Ciphers) {
    let mut block = *b"a block";
    ours.send.apply(&mut block);
    assert_ne!(&block, b"a block");
    theirs.receive.apply(&mut block);
    assert_eq!(&block, b"a block");
    theirs.send.apply(&mut block);
    ours.receive.apply(&mut block);
    assert_eq!(&block, b"a block");
}
