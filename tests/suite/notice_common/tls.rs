//! The server's side of TLS, with a certificate for 127.0.0.1 by an authority that nobody knows, unless
//! `SSL_CERT_FILE` names it. The key of the server is no secret, and that of the authority was thrown away.

use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// Of the authority.
pub fn authority() -> String {
    file("authority.pem").into_os_string().into_string().expect("text")
}

pub fn cover(stream: TcpStream) -> StreamOwned<ServerConnection, TcpStream> {
    let certificate = CertificateDer::from_pem_file(file("server.pem")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(file("server.key.pem")).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a certificate and its key");
    StreamOwned::new(ServerConnection::new(Arc::new(config)).expect("a connection"), stream)
}

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/notice").join(name)
}
