//! Only a connection attempt is answered, by something shorter that is not answered itself.

use hekate::wire::utp;

/// Panics when it does not hold for these bytes.
pub fn check(datagram: &[u8]) {
    if let Some(reset) = utp::reset_for(datagram) {
        assert!(reset.len() <= datagram.len());
        assert_eq!(datagram.first(), Some(&0x41));
        assert_eq!(reset[2..4], datagram[2..4]);
        assert_eq!(reset[18..20], datagram[16..18]);
        assert_eq!(utp::reset_for(&reset), None);
    }
}
