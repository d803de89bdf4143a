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

#[test]
fn what_follows_the_end_of_tls_is_not_read() {
    let (config, certificate) = identity();
    let tls = trusting(certificate);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (done, finished) = std::sync::mpsc::channel::<()>();
    let server = std::thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        let mut tls = StreamOwned::new(ServerConnection::new(config).unwrap(), socket);
        let mut asked = [0; 8];
        tls.read_exact(&mut asked).unwrap();
        tls.conn.writer().write_all(&asked).unwrap();
        tls.conn.send_close_notify();
        let mut said = Vec::new();
        while tls.conn.wants_write() {
            tls.conn.write_tls(&mut said).unwrap();
        }
        said.resize(said.len() + (8 << 10), 0x17);
        tls.sock.write_all(&said).unwrap();
        // Of TCP it has no end yet.
        let _ = finished.recv();
    });
    let mut streams = Streams::new(4, 64).unwrap();
    let stream = streams.connect_tls(address, Framing::Turn, &tls, "127.0.0.1").unwrap();
    assert!(matches!(event(&mut streams), StreamEvent::Connected { .. }));
    let datagram = [0x40, 0, 0, 4, 1, 2, 3, 4];
    streams.send(stream, &datagram);
    streams.flush();
    let StreamEvent::Closed { stream: which, why } = event(&mut streams) else { panic!() };
    assert_eq!((which, streams.len()), (stream, 0));
    assert_eq!(why, "the other end closed the connection");
    // What came before the end did come.
    assert_eq!(streams.stats().datagrams_in, 1);
    done.send(()).unwrap();
    server.join().unwrap();
}

#[test]
fn what_waits_at_a_close_leaves_before_the_end_is_said() {
    let (config, certificate) = identity();
    // What it would say unasked would be unread at the close, and TCP's end a reset.
    let mut config = ServerConfig::clone(&config);
    config.send_tls13_tickets = 0;
    let config = Arc::new(config);
    let tls = trusting(certificate);
    // More than rustls keeps in its own buffer (64 KiB).
    let datagram: Vec<u8> = [&[0x40, 0, 0x3, 0xe8][..], &[7; 1_000]].concat();
    let count = 100;
    let bytes = count * datagram.len();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        let mut tls = StreamOwned::new(ServerConnection::new(config).unwrap(), socket);
        let mut all = Vec::new();
        tls.read_to_end(&mut all).map(|_| all.len())
    });
    let mut streams = Streams::new(4, 64).unwrap();
    let stream = streams.connect_tls(address, Framing::Turn, &tls, "127.0.0.1").unwrap();
    assert!(matches!(event(&mut streams), StreamEvent::Connected { .. }));
    (0..count).for_each(|_| streams.send(stream, &datagram));
    streams.close(stream);
    // An end without close_notify would be an error.
    assert_eq!(server.join().unwrap().unwrap(), bytes);
    assert_eq!(streams.stats().ended_unsent, 0);
}
