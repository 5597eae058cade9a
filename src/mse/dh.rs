//! The Diffie-Hellman exchange of MSE: a prime of 768 bits, the generator 2, private keys of 160 bits.
//!
//! All operations take the same time for every private key.

use std::fmt;
use std::sync::LazyLock;

use crypto_bigint::modular::{ConstMontyForm, ConstMontyParams};
use crypto_bigint::{CtAssign, CtEq, U192, U768, const_monty_params};

/// Keys and secrets, padded with zeros on the left. Unit: bytes.
pub const KEY_LENGTH: usize = 96;

/// Private keys. Unit: bytes.
pub const PRIVATE_LENGTH: usize = 20;

const PRIVATE_BITS: u32 = 160;

const_monty_params!(
    Prime,
    U768,
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74\
     020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F1437\
     4FE1356D6D51C245E485B576625E7EC6F44C42E9A63A36210000000000090563"
);

type Element = ConstMontyForm<Prime, { U768::LIMBS }>;

/// The private key is read in digits of four bits.
const DIGITS: usize = 2 * PRIVATE_LENGTH;

/// For each digit, the lowest first, the powers of the generator that it stands for if it is 1 to 15.
/// With them a public key takes 40 products, a quarter of what any other power takes.
///
/// They are computed once, in a quarter of a millisecond. The compiler would take 16 s.
static POWERS: LazyLock<[[Element; 15]; DIGITS]> = LazyLock::new(|| {
    let mut base = Element::new(&U768::from_u8(2));
    [(); DIGITS].map(|()| {
        let mut power = Element::ONE;
        let powers = [(); 15].map(|()| {
            power = power.mul(&base);
            power
        });
        base = power.mul(&base);
        powers
    })
});

/// A secret, known to both sides.
pub type Shared = [u8; KEY_LENGTH];

/// The key of the other side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PublicKey(U768);

impl PublicKey {
    /// Reads a key. None for 0, 1, -1 and what is not below the prime: with these, anybody could tell the
    /// secret.
    #[must_use]
    pub fn new(bytes: &[u8; KEY_LENGTH]) -> Option<Self> {
        let key = U768::from_be_slice(bytes);
        let largest = Prime::PARAMS
            .modulus()
            .as_ref()
            .wrapping_sub(&U768::from_u8(2));
        (key >= U768::from_u8(2) && key <= largest).then_some(Self(key))
    }
}

/// Our private key, for one handshake.
pub struct PrivateKey([u8; PRIVATE_LENGTH]);

impl PrivateKey {
    /// Random bytes, that nobody else knows.
    #[must_use]
    pub fn new(random: [u8; PRIVATE_LENGTH]) -> Self {
        Self(random)
    }

    /// What the other side must know.
    #[must_use]
    pub fn public(&self) -> [u8; KEY_LENGTH] {
        let digits = self.0.iter().rev().flat_map(|byte| [byte & 15, byte >> 4]);
        let mut product = Element::ONE;
        for (digit, powers) in digits.zip(&*POWERS) {
            let mut factor = Element::ONE;
            for (value, power) in (1_u8..).zip(powers) {
                factor.ct_assign(power, digit.ct_eq(&value));
            }
            product = product.mul(&factor);
        }
        bytes_of(&product)
    }

    /// The secret.
    #[must_use]
    pub fn shared(&self, other: &PublicKey) -> Shared {
        let mut exponent = [0; 24];
        let (_, low) = exponent.split_at_mut(24 - PRIVATE_LENGTH);
        low.copy_from_slice(&self.0);
        let exponent = U192::from_be_slice(&exponent);
        bytes_of(&Element::new(&other.0).pow_bounded_exp(&exponent, PRIVATE_BITS))
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("PrivateKey")
    }
}

fn bytes_of(element: &Element) -> [u8; KEY_LENGTH] {
    let mut bytes = [0; KEY_LENGTH];
    bytes.copy_from_slice(element.retrieve().to_be_bytes().as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minus(less: u8) -> [u8; KEY_LENGTH] {
        let value = Prime::PARAMS
            .modulus()
            .as_ref()
            .wrapping_sub(&U768::from_u8(less));
        let mut bytes = [0; KEY_LENGTH];
        bytes.copy_from_slice(value.to_be_bytes().as_ref());
        bytes
    }

    fn small(value: u8) -> [u8; KEY_LENGTH] {
        let mut bytes = [0; KEY_LENGTH];
        bytes[KEY_LENGTH - 1] = value;
        bytes
    }

    #[test]
    fn public_keys_are_powers_of_two() {
        let public = |low: u8| {
            let mut private = [0; PRIVATE_LENGTH];
            private[PRIVATE_LENGTH - 1] = low;
            PrivateKey::new(private).public()
        };
        assert_eq!(public(1), small(2));
        assert_eq!(public(7), small(128));
        let mut two_to_255 = [0; KEY_LENGTH];
        two_to_255[KEY_LENGTH - 32] = 128;
        assert_eq!(public(255), two_to_255);
        // Against the other way to the same power.
        let two = PublicKey::new(&small(2)).unwrap();
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..20 {
            let private = PrivateKey::new(std::array::from_fn(|_| random.u8(..)));
            assert_eq!(private.public(), private.shared(&two));
        }
    }

    #[test]
    fn both_sides_have_the_same_secret_also_if_it_begins_with_zeros() {
        let mut random = fastrand::Rng::with_seed(2);
        let (mut short_keys, mut short_secrets) = (0, 0);
        for _ in 0..600 {
            let [one, other] =
                [(); 2].map(|()| PrivateKey::new(std::array::from_fn(|_| random.u8(..))));
            let [one_public, other_public] =
                [&one, &other].map(|key| PublicKey::new(&key.public()).unwrap());
            let secret = one.shared(&other_public);
            assert_eq!(secret, other.shared(&one_public));
            short_keys += u32::from(one.public()[0] == 0);
            short_secrets += u32::from(secret[0] == 0);
        }
        assert!(short_keys > 0 && short_secrets > 0);
    }

    #[test]
    fn a_secret_is_what_other_programs_compute() {
        // python3: pow(pow(2, int.from_bytes(bytes(range(1, 21))), p), int.from_bytes(b"\xff" * 20), p)
        let one = PrivateKey::new(std::array::from_fn(|at| u8::try_from(at + 1).unwrap()));
        let other = PrivateKey::new([0xff; PRIVATE_LENGTH]);
        let shared = other.shared(&PublicKey::new(&one.public()).unwrap());
        let hex: String = shared.iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = concat!(
            "3adb0afff0af5a57448d2c9942ba132cd670d27879b5bf7745c8c4fd2ce1bc68",
            "e599e1c7ae211b44220a1ce7c6da8dcef2acd5516b5358089caae45e14b3626c",
            "7c824c214a4b4bb0b90f4973d99a368cd092d23c1c46fe2f70f0cc81fe510f31"
        );
        assert_eq!(hex, expected);
    }

    #[test]
    fn keys_that_give_the_secret_away_are_refused() {
        for bad in [small(0), small(1), minus(1), minus(0), [0xff; KEY_LENGTH]] {
            assert_eq!(PublicKey::new(&bad), None);
        }
        for good in [small(2), minus(2)] {
            assert!(PublicKey::new(&good).is_some());
        }
    }
}
