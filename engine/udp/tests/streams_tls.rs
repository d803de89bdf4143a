//! Datagrams over TLS on loopback, as a TURN server takes them.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use stampede_udp::{Framing, StreamEvent, Streams};

const SOON: Duration = Duration::from_secs(10);

/// A server's configuration, and the certificate to trust.
fn identity() -> (Arc<ServerConfig>, CertificateDer<'static>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
    let certificate = params.self_signed(&key).unwrap().der().clone();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        );
    (Arc::new(config.unwrap()), certificate)
}

fn trusting(certificate: CertificateDer<'static>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Sends back so many bytes, in pieces of any length, and then reads to the end; whether that was
/// said (close_notify).
fn echo(config: Arc<ServerConfig>, bytes: usize) -> (SocketAddr, std::thread::JoinHandle<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        let mut tls = StreamOwned::new(ServerConnection::new(config).unwrap(), socket);
        let (mut buffer, mut left) = ([0; 1_311], bytes);
        while left > 0 {
            let Ok(count) = tls.read(&mut buffer) else { return false };
            tls.write_all(&buffer[..count]).unwrap();
            left -= count;
        }
        tls.flush().unwrap();
        matches!(tls.read(&mut buffer), Ok(0))
    });
    (address, server)
}

fn event(streams: &mut Streams) -> StreamEvent {
    let end = Instant::now() + SOON;
    loop {
        streams.poll().unwrap();
        if let Some(event) = streams.happened().pop() {
            return event;
        }
        assert!(Instant::now() < end, "nothing happened");
    }
}

#[test]
fn datagrams_go_over_tls_and_come_back_as_they_were() {
    let (config, certificate) = identity();
    let tls = trusting(certificate);
    let datagrams: Vec<Vec<u8>> = (0..400_u16)
        .map(|number| {
            let len = number % 1_200;
            let mut data = vec![0x40, 0, (len >> 8) as u8, len as u8];
            data.resize(4 + usize::from(len), number as u8);
            data
        })
        .collect();
    let bytes = datagrams.iter().map(|datagram| datagram.len().next_multiple_of(4)).sum();
    let (address, server) = echo(config, bytes);
    let mut streams = Streams::new(4, 64).unwrap();
    let stream = streams.connect_tls(address, Framing::Turn, &tls, "127.0.0.1").unwrap();
    // Nothing is taken before the handshake is over.
    streams.send(stream, &datagrams[0]);
    assert_eq!(streams.stats().ended_unsent, 1);
    let StreamEvent::Connected { stream: which, local } = event(&mut streams) else { panic!() };
    assert_eq!((which, streams.local(stream).unwrap()), (stream, local));
    let mut came = Vec::new();
    let end = Instant::now() + SOON;
    for part in datagrams.chunks(50) {
        part.iter().for_each(|datagram| streams.send(stream, datagram));
        streams.flush();
    }
    while came.len() < datagrams.len() {
        streams.poll().unwrap();
        came.extend(streams.batch().iter().map(|received| streams.payload(received).to_vec()));
        assert!(Instant::now() < end, "{} of {}", came.len(), datagrams.len());
    }
    assert!(came == datagrams);
    let stats = streams.stats();
    assert_eq!((stats.datagrams_out, stats.datagrams_in, stats.connected), (400, 400, 1));
    assert!(stats.bytes_out > bytes as u64 && stats.bytes_in > bytes as u64);
    streams.close(stream);
    assert!(server.join().unwrap(), "its end was said");
}

#[test]
fn nobody_is_connected_to_whom_nobody_trusts() {
    let ((config, _), (_, another)) = (identity(), identity());
    let (address, server) = echo(config, 4);
    let mut streams = Streams::new(4, 64).unwrap();
    let tls = trusting(another);
    let stream = streams.connect_tls(address, Framing::Turn, &tls, "127.0.0.1").unwrap();
    let StreamEvent::Closed { stream: which, why } = event(&mut streams) else { panic!() };
    assert_eq!((which, streams.len(), streams.stats().connects_failed), (stream, 0, 1));
    assert!(why.starts_with("invalid peer certificate"), "{why}");
    assert!(!server.join().unwrap());
    assert!(streams.connect_tls(address, Framing::Turn, &tls, "no name").is_err());
}
