//! A connection between coordinator and worker: TLS, one websocket, both proofs, and then messages.

use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::ServerName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use stampede_hosts::messages::{
    FromWorker, MESSAGE_BYTES_MAX, MessageError, PROTOCOL, ToWorker, decode, encode, shown,
};
use stampede_hosts::proof::{Binding, Hex32, Nonce, Side, Token, fingerprint, is_proven, prove};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_tungstenite::{WebSocketStream, accept_async_with_config, client_async_with_config};

/// Version of this binary, which both sides must have in common.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// How long everything before the first share's message may take.
const GREETING_MAX: Duration = Duration::from_secs(10);
/// How long one message may take to be written: longer than that a side is taken for lost anyway.
const WRITE_MAX: Duration = Duration::from_secs(10);

/// The websocket.
pub(super) type Socket = WebSocketStream<TlsStream<TcpStream>>;
/// Its half for writing.
pub(super) type Sink = SplitSink<Socket, Message>;
/// Its half for reading.
pub(super) type Stream = SplitStream<Socket>;

/// Why a connection did not come about, or ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    /// TCP or TLS.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The websocket.
    #[error("{0}")]
    WebSocket(#[from] Box<WsError>),
    /// What came.
    #[error("{0}")]
    Message(#[from] MessageError),
    /// It took too long.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The other side has ended it.
    #[error("the other side has closed the connection")]
    Closed,
    /// Another message was due.
    #[error("the other side does not speak this protocol")]
    Protocol,
    /// The two are not alike.
    #[error("it is stampede {theirs}, and this is {VERSION}: all hosts of a run need the same one")]
    Version {
        /// As it says.
        theirs: String,
    },
    /// The token is not the same, or somebody sits in between.
    #[error(
        "it could not prove that it knows STAMPEDE_TOKEN over this connection: the token is not the \
         same on both hosts, or somebody sits between them"
    )]
    NotProven,
    /// The coordinator said so.
    #[error("{0}")]
    Refused(String),
    /// No random numbers.
    #[error("no random numbers")]
    Random,
}

impl From<WsError> for LinkError {
    fn from(error: WsError) -> Self {
        Self::WebSocket(Box::new(error))
    }
}

impl LinkError {
    /// Another try may help: nobody listens yet.
    pub(super) fn is_absence(&self) -> bool {
        matches!(self, Self::Io(_) | Self::Timeout(_))
    }
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX))
}

fn nonce() -> Result<Nonce, LinkError> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| LinkError::Random)?;
    Ok(Hex32(bytes))
}

/// Sends one message.
pub(super) async fn send(
    sink: &mut (impl SinkExt<Message, Error = WsError> + Unpin),
    message: &impl Serialize,
) -> Result<(), LinkError> {
    send_text(sink, encode(message)?).await
}

/// Sends a message that is encoded already.
pub(super) async fn send_text(
    sink: &mut (impl SinkExt<Message, Error = WsError> + Unpin),
    text: String,
) -> Result<(), LinkError> {
    let sent = timeout(WRITE_MAX, sink.send(Message::text(text))).await;
    Ok(sent.map_err(|_| LinkError::Timeout(WRITE_MAX))??)
}

/// Sends a part of a report.
pub(super) async fn send_part(sink: &mut Sink, part: &[u8]) -> Result<(), LinkError> {
    let part = Message::binary(part.to_vec());
    let sent = timeout(WRITE_MAX, sink.send(part)).await;
    Ok(sent.map_err(|_| LinkError::Timeout(WRITE_MAX))??)
}

/// What came.
pub(super) enum Came<T> {
    /// A message.
    Message(T),
    /// A part of a report.
    Part(Vec<u8>),
}

/// The next message.
pub(super) async fn receive<T: DeserializeOwned>(
    stream: &mut (impl StreamExt<Item = Result<Message, WsError>> + Unpin),
) -> Result<Came<T>, LinkError> {
    loop {
        match stream.next().await {
            None | Some(Ok(Message::Close(_)) | Err(WsError::ConnectionClosed)) => {
                return Err(LinkError::Closed);
            }
            Some(Ok(Message::Text(text))) => return Ok(Came::Message(decode(&text)?)),
            Some(Ok(Message::Binary(part))) => return Ok(Came::Part(part.to_vec())),
            // Pings are answered by the library.
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error.into()),
        }
    }
}

async fn next<T: DeserializeOwned>(socket: &mut Socket) -> Result<T, LinkError> {
    match receive(socket).await? {
        Came::Message(message) => Ok(message),
        Came::Part(_) => Err(LinkError::Protocol),
    }
}

/// A worker that has proven itself.
pub(super) struct Greeted {
    /// The connection.
    pub socket: Socket,
    /// As it calls itself.
    pub name: String,
    /// What it carries.
    pub capacity: Option<u64>,
}

/// The coordinator's side: whoever connects proves itself within a time, or is left.
pub(super) async fn greet(
    tcp: TcpStream,
    acceptor: &TlsAcceptor,
    certificate: [u8; 32],
    token: &Token,
) -> Result<Greeted, LinkError> {
    let greeting = async {
        tcp.set_nodelay(true)?;
        let tls = acceptor.accept(tcp).await?;
        let mut socket = accept_async_with_config(TlsStream::from(tls), Some(config())).await?;
        let FromWorker::Hello { protocol, version, name, nonce: theirs, capacity } =
            next(&mut socket).await?
        else {
            return Err(LinkError::Protocol);
        };
        if protocol != PROTOCOL || version != VERSION {
            let theirs = shown(&version);
            let why = format!("the coordinator is stampede {VERSION}, and this is {theirs}");
            let _ = send(&mut socket, &ToWorker::Refused { why }).await;
            return Err(LinkError::Version { theirs });
        }
        let own = nonce()?;
        let binding = Binding { worker: theirs, coordinator: own, certificate };
        let proof = prove(token, Side::Coordinator, &binding);
        let challenge = ToWorker::Challenge { version: VERSION.to_owned(), nonce: own, proof };
        send(&mut socket, &challenge).await?;
        let FromWorker::Proof { proof } = next(&mut socket).await? else {
            return Err(LinkError::Protocol);
        };
        match is_proven(token, Side::Worker, &binding, &proof) {
            true => Ok(Greeted { socket, name, capacity }),
            false => {
                let why = "STAMPEDE_TOKEN is not the coordinator's".to_owned();
                let _ = send(&mut socket, &ToWorker::Refused { why }).await;
                Err(LinkError::NotProven)
            }
        }
    };
    let greeted = timeout(GREETING_MAX, greeting).await;
    greeted.map_err(|_| LinkError::Timeout(GREETING_MAX))?
}

/// The worker's side, up to the coordinator's word that it is one of the run's.
pub(super) async fn introduce(
    address: &str,
    connector: &TlsConnector,
    token: &Token,
    name: &str,
    capacity: Option<u64>,
) -> Result<Socket, LinkError> {
    let introduction = async {
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        let server = ServerName::try_from(super::tls::NAME).map_err(|_| LinkError::Protocol)?;
        let tls = connector.connect(server, tcp).await?;
        let certificates = tls.get_ref().1.peer_certificates().unwrap_or_default();
        let certificate = certificates.first().ok_or(LinkError::NotProven)?;
        let certificate = fingerprint(certificate);
        let url = format!("ws://{}/", super::tls::NAME);
        let (mut socket, _) =
            client_async_with_config(url, TlsStream::from(tls), Some(config())).await?;
        let own = nonce()?;
        let hello = FromWorker::Hello {
            protocol: PROTOCOL,
            version: VERSION.to_owned(),
            name: name.to_owned(),
            nonce: own,
            capacity,
        };
        send(&mut socket, &hello).await?;
        let (theirs, proof) = match next(&mut socket).await? {
            ToWorker::Challenge { nonce, proof, .. } => (nonce, proof),
            ToWorker::Refused { why } => return Err(LinkError::Refused(shown(&why))),
            _ => return Err(LinkError::Protocol),
        };
        let binding = Binding { worker: own, coordinator: theirs, certificate };
        // Before anything is told to whoever it is.
        if !is_proven(token, Side::Coordinator, &binding, &proof) {
            return Err(LinkError::NotProven);
        }
        let proof = prove(token, Side::Worker, &binding);
        send(&mut socket, &FromWorker::Proof { proof }).await?;
        match next(&mut socket).await? {
            ToWorker::Admitted => Ok(socket),
            ToWorker::Refused { why } => Err(LinkError::Refused(shown(&why))),
            _ => Err(LinkError::Protocol),
        }
    };
    let introduced = timeout(GREETING_MAX, introduction).await;
    introduced.map_err(|_| LinkError::Timeout(GREETING_MAX))?
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::hosts::tls;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    fn token(text: &str) -> Token {
        Token::new(Some(text)).unwrap()
    }

    /// Both sides of one connection, each with its token.
    async fn met(coordinator: &str, worker: &str) -> [Result<(), LinkError>; 2] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (acceptor, own) = tls::acceptor().unwrap();
        let (coordinator, worker) = (token(coordinator), token(worker));
        let greeting = async {
            let (tcp, _) = listener.accept().await.unwrap();
            let mut greeted = greet(tcp, &acceptor, own, &coordinator).await?;
            assert_eq!((greeted.name.as_str(), greeted.capacity), ("a", Some(7)));
            send(&mut greeted.socket, &ToWorker::Admitted).await
        };
        let connector = tls::connector().unwrap();
        let introduction = introduce(&address, &connector, &worker, "a", Some(7));
        let (greeted, introduced) = tokio::join!(greeting, introduction);
        [greeted, introduced.map(drop)]
    }

    #[tokio::test]
    async fn who_has_the_same_token_meets_and_nobody_else() {
        assert!(met(TOKEN, TOKEN).await.iter().all(Result::is_ok));
        let [greeted, introduced] = met(TOKEN, &TOKEN.replace('0', "x")).await;
        assert!(matches!(introduced, Err(LinkError::NotProven)), "{introduced:?}");
        assert!(greeted.is_err(), "it was told nothing");
    }

    /// Somebody who forwards everything, and so has to end TLS by a certificate of its own.
    #[tokio::test]
    async fn who_sits_in_between_is_found_by_its_certificate() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (acceptor, _) = tls::acceptor().unwrap();
        let (_, behind) = tls::acceptor().unwrap();
        let token = token(TOKEN);
        let greeting = async {
            let (tcp, _) = listener.accept().await.unwrap();
            // The proof that it got from the coordinator behind covers that one's certificate.
            greet(tcp, &acceptor, behind, &token).await.map(drop)
        };
        let connector = tls::connector().unwrap();
        let introduction = introduce(&address, &connector, &token, "a", None);
        let (greeted, introduced) = tokio::join!(greeting, introduction);
        assert!(matches!(introduced, Err(LinkError::NotProven)));
        assert!(greeted.is_err());
    }
}
