//! An encryption handshake ends the same way however its bytes are cut, and holds little.
//!
//! The first byte says where the input is put in: as all that the peer says, behind a good key, or as what
//! it enciphers behind a good name of the torrent, so that every state is reached. The second chooses how the
//! bytes are cut.

use hekate::mse::MseError;
use hekate::mse::cipher::Cipher;
use hekate::mse::dh::{KEY_LENGTH, PRIVATE_LENGTH, PrivateKey, PublicKey, Shared};
use hekate::mse::receiving::{Allowed, Progress, Receiving};
use hekate::wire::message::InfoHash;
use sha1::{Digest, Sha1};

const INFO_HASH: InfoHash = InfoHash([1; 20]);
const OURS: [u8; PRIVATE_LENGTH] = [2; PRIVATE_LENGTH];
const THEIRS: [u8; PRIVATE_LENGTH] = [3; PRIVATE_LENGTH];

/// The most that may be held: a key, or two paddings, two hashes, an offer and a payload.
const HELD_MAX: usize = 2000;

/// How a handshake ends, or that it wants more.
#[derive(PartialEq, Eq, Debug)]
enum End {
    Wants,
    UnknownTorrent,
    Done {
        answer: Vec<u8>,
        received: Vec<u8>,
        is_enciphered: bool,
    },
    Failed(MseError),
}

/// The bytes go in as they are wanted, at most `step` at once. Returns the end, and what was not wanted.
fn run(bytes: &[u8], step: usize, allowed: Allowed) -> (End, Vec<u8>) {
    let mut receiving = Receiving::new();
    let mut rest = bytes;
    let mut held = 0;
    loop {
        let wanted = receiving.wanted();
        assert!(wanted <= HELD_MAX, "{wanted}");
        let count = wanted.min(step).min(rest.len());
        let (now, behind) = rest.split_at(count);
        rest = behind;
        held += count;
        let mut progress = receiving.receive(now, allowed);
        if let Ok(Progress::TorrentWanted(hash)) = progress {
            assert_eq!(receiving.wanted(), 0);
            if hash != INFO_HASH.obfuscated() {
                return (End::UnknownTorrent, rest.to_vec());
            }
            progress = receiving.torrent_found(&INFO_HASH, allowed);
        }
        match progress {
            Err(error) => return (End::Failed(error), rest.to_vec()),
            Ok(Progress::KeyReceived) => {
                assert_eq!(receiving.wanted(), 0);
                assert_eq!(held, KEY_LENGTH, "nothing behind the key was read");
                held = 0;
                let answer = receiving.exchange(OURS, b"padding");
                assert_eq!(answer.len(), KEY_LENGTH + 7);
            }
            Ok(Progress::Done(done, answer)) => {
                let end = End::Done {
                    answer: answer.to_vec(),
                    received: done.received,
                    is_enciphered: done.ciphers.is_some(),
                };
                return (end, rest.to_vec());
            }
            Ok(Progress::Bytes | Progress::TorrentWanted(_)) => {
                if rest.is_empty() {
                    return (End::Wants, Vec::new());
                }
                assert!(count > 0, "a handshake that goes on wants bytes");
            }
        }
    }
}

fn hash(label: &[u8], shared: &Shared) -> [u8; 20] {
    let hash = Sha1::new().chain_update(label).chain_update(shared);
    hash.finalize().into()
}

/// Panics when it does not hold for these bytes.
pub fn check(data: &[u8]) {
    let [kind, step, input @ ..] = data else {
        return;
    };
    let allowed = match kind & 4 {
        0 => Allowed::Both,
        _ => Allowed::Rc4,
    };
    let theirs = PrivateKey::new(THEIRS);
    let ours = PublicKey::new(&PrivateKey::new(OURS).public()).expect("a good key");
    let shared = theirs.shared(&ours);
    let mut bytes = Vec::new();
    if kind % 4 > 0 {
        bytes.extend(theirs.public());
    }
    if kind % 4 > 1 {
        bytes.extend(vec![7; usize::from(*step)]);
        bytes.extend(hash(b"req1", &shared));
        let name = INFO_HASH.obfuscated().into_iter();
        bytes.extend(
            name.zip(hash(b"req3", &shared))
                .map(|(byte, mask)| byte ^ mask),
        );
        let mut plain = input.to_vec();
        if kind % 4 > 2 {
            // Most inputs would not get past the verification.
            plain.splice(..0, [0; 8]);
        }
        Cipher::of_dialling_side(&shared, &INFO_HASH).apply(&mut plain);
        bytes.extend(plain);
    } else {
        bytes.extend(input);
    }
    let (whole, whole_rest) = run(&bytes, usize::MAX, allowed);
    let (cut, cut_rest) = run(&bytes, usize::from(*step) + 1, allowed);
    match (whole, cut) {
        // What came with the end may have been read with it, or not.
        (
            End::Done {
                answer,
                received,
                is_enciphered,
            },
            End::Done {
                answer: cut_answer,
                received: cut_received,
                is_enciphered: cut_enciphered,
            },
        ) => {
            assert_eq!((answer, is_enciphered), (cut_answer, cut_enciphered));
            assert!(received.starts_with(&cut_received));
            assert!(cut_rest.len() >= whole_rest.len());
        }
        (whole, cut) => assert_eq!(whole, cut),
    }
}
