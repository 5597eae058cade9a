//! TLS with trackers: whose certificates are trusted, and what its errors mean to an operator.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use crate::torrent::printable::Printable;

/// Reads the system's certificates, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name, and those of
/// a file (PEM). What cannot be read is logged, and trackers that need it are not trusted.
pub(super) fn client_config(certificates: Option<&Path>) -> Arc<ClientConfig> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        log::warn!("cannot load all certificates: {error}");
    }
    let mut roots = RootCertStore::empty();
    let (added, ignored) = roots.add_parsable_certificates(found.certs);
    log::debug!("{added} system certificates loaded, {ignored} ignored");
    let mut named = Vec::new();
    if let Some(path) = certificates
        && let Err(error) = add(&mut roots, &mut named, path)
    {
        log::warn!(
            "cannot load all certificates: {}: {error}",
            Printable::path(path)
        );
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("ring has ciphers for TLS 1.2 and 1.3");
    let mut config = if named.is_empty() {
        builder.with_root_certificates(roots).with_no_client_auth()
    } else {
        let usual = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let usual = usual.expect("a certificate that is named is a root");
        let verifier = Verifier { usual, named };
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth()
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

/// Trusts the certificates of a file, and appends them to `named`.
fn add(
    roots: &mut RootCertStore,
    named: &mut Vec<CertificateDer<'static>>,
    path: &Path,
) -> io::Result<()> {
    let text = std::fs::read(path)?;
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|_| invalid("it is not PEM"))?;
        let added = roots.add(certificate.clone());
        added.map_err(|_| invalid("it has something that is not a certificate"))?;
        named.push(certificate);
    }
    if named.is_empty() {
        return Err(invalid("it has no certificate"));
    }
    Ok(())
}

/// Trusts what the library trusts, and a server whose own certificate the operator has named, whoever
/// signed it. The library asks that a signer is trusted, and refuses the certificate of a signer for a
/// server, which is what `openssl req -x509` makes.
#[derive(Debug)]
struct Verifier {
    usual: Arc<WebPkiServerVerifier>,
    named: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified =
            (self.usual).verify_server_cert(certificate, intermediates, name, ocsp_response, now);
        match verified {
            // A certificate that has expired, or is not valid yet, has another error.
            Err(Error::InvalidCertificate(error))
                if is_about_signer(&error) && self.named.contains(certificate) =>
            {
                verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// What an error of a connection means, as words that follow the name of a tracker.
pub(super) fn words(error: &io::Error) -> String {
    let inner = error.get_ref();
    match inner.and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(error) => of_tls(error).to_owned(),
        None => error.to_string(),
    }
}

/// Returns true if nobody who is trusted has signed a certificate, though somebody of the same name may
/// be; or if it is that of a signer itself, which is among the other errors.
fn is_about_signer(error: &CertificateError) -> bool {
    matches!(
        error,
        CertificateError::UnknownIssuer
            | CertificateError::BadSignature
            | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. }
            | CertificateError::Other(_)
    )
}

/// The library's own texts are for programmers.
fn of_tls(error: &Error) -> &'static str {
    match error {
        Error::InvalidCertificate(error) => match error {
            _ if is_about_signer(error) => {
                "its certificate is signed by nobody who is trusted; --tracker-certs can name it"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet; is the clock of this machine right?"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "its certificate is for other names"
            }
            CertificateError::Revoked => "its certificate was revoked",
            _ => "its certificate is not valid",
        },
        Error::NoCertificatesPresented => "it has no certificate",
        Error::PeerIncompatible(_) => {
            "it supports neither TLS 1.2 nor 1.3, or none of their ciphers"
        }
        Error::AlertReceived(_) => "it refuses the TLS connection",
        Error::InvalidMessage(_) => "it does not speak TLS at this port",
        _ => "it breaks the rules of TLS",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::AlertDescription;

    #[test]
    fn errors_of_tls_are_words() {
        let tls = |error: Error| words(&io::Error::new(io::ErrorKind::InvalidData, error));
        for (error, said) in [
            (
                CertificateError::UnknownIssuer,
                "is trusted; --tracker-certs",
            ),
            (CertificateError::Expired, "has expired"),
            (CertificateError::NotValidForName, "for other names"),
            (CertificateError::BadEncoding, "is not valid"),
        ] {
            let words = tls(error.clone().into());
            assert!(
                words.contains(said) && !words.contains(&format!("{error:?}")),
                "{words}"
            );
        }
        let alert = tls(Error::AlertReceived(AlertDescription::HandshakeFailure));
        assert_eq!(alert, "it refuses the TLS connection");
        let plain = io::Error::from_raw_os_error(libc::ECONNREFUSED);
        assert_eq!(words(&plain), "Connection refused (os error 111)");
    }

    #[test]
    fn a_file_of_certificates_is_read_or_said_to_be_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("certs.pem");
        let mut roots = RootCertStore::empty();
        let mut named = Vec::new();
        assert!(add(&mut roots, &mut named, &path).is_err());
        for (text, error) in [
            ("", "it has no certificate"),
            (
                "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
                "it is not PEM",
            ),
            (
                "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n",
                "it has something that is not a certificate",
            ),
        ] {
            std::fs::write(&path, text).unwrap();
            let added = add(&mut roots, &mut named, &path);
            assert_eq!(added.unwrap_err().to_string(), error);
        }
    }
}
