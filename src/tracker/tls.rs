//! TLS as a tracker is spoken to with: the system's roots, nothing else.
//!
//! Owns the configuration that all connections share. It must not know connections.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

/// Reads the system's certificates, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name. What
/// cannot be read is told to the log, and trackers that need it are not trusted.
pub(super) fn client_config() -> Arc<ClientConfig> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        log::warn!("cannot load all certificates: {error}");
    }
    let mut roots = RootCertStore::empty();
    let (added, ignored) = roots.add_parsable_certificates(found.certs);
    log::debug!("{added} system certificates loaded, {ignored} ignored");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has ciphers for TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}
