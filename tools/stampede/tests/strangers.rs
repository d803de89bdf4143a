//! Who connects and then does nothing stops nobody: at the embedded SFU, and at `--prometheus`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use common::{Running, Sfu, alone};

/// Longer than anybody may be made to wait by others.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(ANSWER_TIMEOUT)).unwrap();
    stream
}

/// Connections that say nothing, and some that have said half of something.
fn idlers(address: &str, count: usize) -> Vec<TcpStream> {
    let mut idlers: Vec<TcpStream> = (0..count).map(|_| connect(address)).collect();
    for idler in idlers.iter_mut().step_by(3) {
        write!(idler, "GET / HTTP/1.1\r\nHost: ").unwrap();
    }
    idlers
}

fn get(address: &str, path: &str) -> String {
    let mut stream = connect(address);
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn idle_connections_do_not_block_an_sfu_that_may_open_few_files() {
    let few_files = ["sh", "-c", "ulimit -n 64; exec \"$0\" \"$@\""];
    let sfu = Sfu::start_under(&few_files, &[]);
    let address = sfu.url.strip_prefix("ws://").unwrap().to_owned();
    let idlers = idlers(&address, 60);
    let answer = get(&address, "/");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let ledger = sfu.end();
    let displaced = ledger["connections_displaced"].as_u64().unwrap();
    assert!(displaced > 0 && displaced <= 60, "{ledger}");
    drop(idlers);
}

#[test]
fn scrapers_that_hang_are_no_matter_for_a_run() {
    let _alone = alone();
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let address = address.to_string();
    let args = ["run", "--subscribers=4", "--duration=6s", "--no-tui", "--prometheus", &address];
    let mut running = Running::start(&args);
    running.wait_for(" hold ");
    let idlers = idlers(&address, 100);
    // They ask, again and again, and read nothing.
    let mut deaf: Vec<TcpStream> = (0..8).map(|_| connect(&address)).collect();
    for scraper in &mut deaf {
        let asked = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n".repeat(200);
        scraper.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
        // What does not fit any more is not sent; the server may have made room meanwhile, too.
        let _ = scraper.write_all(&asked);
    }
    let answer = get(&address, "/metrics");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("# EOF\n"), "{answer}");
    let ended = running.end();
    ended.assert_code(0);
    assert_eq!(ended.report()["join"]["joined"], 5);
    drop((idlers, deaf));
}
