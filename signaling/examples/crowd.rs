//! What many signalling connections cost on one thread, media left out:
//! `LIVEKIT_URL=… LIVEKIT_API_KEY=… LIVEKIT_API_SECRET=… cargo run --release -p stampede-signaling
//! --example crowd -- 2000 [hidden]`

#![allow(clippy::print_stdout)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use stampede_signaling::session::{Quality, Role, SessionEvent, Subscription};
use stampede_signaling::*;

/// Resident kilobytes and CPU milliseconds of this process, from /proc.
fn usage() -> (u64, u64) {
    let read = |file| std::fs::read_to_string(file).unwrap_or_default();
    let status = read("/proc/self/status");
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let rss = rss.and_then(|rss| rss.trim().trim_end_matches(" kB").parse().ok());
    let cpu_ns = read("/proc/self/schedstat").split(' ').next().and_then(|ns| ns.parse().ok());
    (rss.unwrap_or(0), cpu_ns.unwrap_or(0_u64) / 1_000_000)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let count: usize = arguments.first().map_or(Ok(200), |count| count.parse())?;
    let hidden = arguments.get(1).is_some_and(|word| word == "hidden");
    let variable = std::env::var;
    let url = ServerUrl::parse(&variable("LIVEKIT_URL")?)?;
    let credentials =
        ApiCredentials::new(&variable("LIVEKIT_API_KEY")?, &variable("LIVEKIT_API_SECRET")?)?;
    let tls = TlsSetup::new()?;
    let (rss_before_kb, _) = usage();
    let joined = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let mut tasks = Vec::new();
    for index in 0..count {
        let identity = format!("crowd-{index}");
        let grant = JoinGrant {
            room: "crowd",
            identity: &identity,
            can_publish: false,
            can_publish_data: false,
            can_subscribe: true,
            hidden,
            ttl: TOKEN_TTL,
            profile: &PLAIN,
        };
        let token = credentials.join_token(&grant)?;
        let role = Role::subscriber(Subscription::Auto, Quality::Low);
        let options = ConnectOptions::new(url.clone(), token, role, tls.clone());
        let joined = Arc::clone(&joined);
        tasks.push(tokio::spawn(async move {
            let mut connection = match Connection::connect(options).await {
                Ok(connection) => connection,
                Err(error) => return println!("{}: {error}", error.kind()),
            };
            while let Some(update) = connection.next().await {
                match update {
                    Update::Event(SessionEvent::Joined(_)) => {
                        joined.fetch_add(1, Ordering::Relaxed);
                    }
                    Update::Event(SessionEvent::Ended(reason)) => println!("{}", reason.kind()),
                    _ => {}
                }
            }
        }));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_secs(4)).await;
    let (rss_kb, cpu_ms) = usage();
    let per_connection_kb = rss_kb.saturating_sub(rss_before_kb) / count.max(1) as u64;
    println!(
        "{} of {count} joined in {:?}; {cpu_ms} ms CPU; {rss_kb} kB resident, {per_connection_kb} kB a connection",
        joined.load(Ordering::Relaxed),
        started.elapsed(),
    );
    for task in tasks {
        task.abort();
    }
    Ok(())
}
