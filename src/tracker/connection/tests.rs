//! What a tracker sends inside TLS, told without sockets.

use std::path::Path;
use std::process::Command;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{RootCertStore, ServerConfig, ServerConnection};

use super::*;

/// What one read gives at most.
const PART_BYTES: usize = 100;

/// What has come and what is said; blocks when nothing has.
#[derive(Default)]
struct Stream {
    incoming: VecDeque<u8>,
    outgoing: Vec<u8>,
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(PART_BYTES);
        match self.incoming.read(buffer.get_mut(..length).unwrap())? {
            0 => Err(ErrorKind::WouldBlock.into()),
            length => Ok(length),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.outgoing.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A certificate for localhost that signs itself, and its key.
fn certificate(directory: &Path) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let (certificate, key) = (directory.join("certificate"), directory.join("key"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"])
        .args(["-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-out"])
        .arg(&certificate)
        .arg("-keyout")
        .arg(&key)
        .output()
        .expect("openssl is installed");
    assert!(made.status.success(), "{made:?}");
    (
        CertificateDer::from_pem_file(&certificate).unwrap(),
        PrivateKeyDer::from_pem_file(&key).unwrap(),
    )
}

/// Both ends.
fn ends() -> (ClientConnection, ServerConnection) {
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key) = certificate(directory.path());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    (
        ClientConnection::new(Arc::new(client), name).unwrap(),
        ServerConnection::new(Arc::new(server)).unwrap(),
    )
}

#[test]
fn what_holds_no_plain_byte_is_read_within_the_budget_too() {
    let (mut client, mut server) = ends();
    let mut stream = Stream::default();
    let mut buffer = [0; 1024];
    let mut read = |client: &mut _, stream: &mut _, budget: &mut usize| {
        decrypt(client, stream, &mut true, &mut buffer, budget)
    };
    client.write_tls(&mut stream.outgoing).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let said = std::mem::take(&mut stream.outgoing);
        server.read_tls(&mut &said[..]).unwrap();
        server.process_new_packets().unwrap();
        while server.is_handshaking() && server.wants_write() {
            server.write_tls(&mut stream.incoming).unwrap();
        }
        let blocked = read(&mut client, &mut stream, &mut { usize::MAX });
        assert_eq!(blocked.unwrap_err().kind(), ErrorKind::WouldBlock);
    }
    // The bytes of a record are plain only once all of it has come.
    server.writer().write_all(&[b'x'; 16_000]).unwrap();
    while server.wants_write() {
        server.write_tls(&mut stream.incoming).unwrap();
    }
    let mut budget = 1000;
    let blocked = read(&mut client, &mut stream, &mut budget);
    assert_eq!(blocked.unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(budget, 0);
    assert!(stream.incoming.len() > 14_000);
    // In the turns after it the rest is read.
    let length = read(&mut client, &mut stream, &mut { usize::MAX });
    assert_eq!(length.unwrap(), 1024);
}
