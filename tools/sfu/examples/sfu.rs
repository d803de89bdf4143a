//! Runs the SFU alone until Ctrl-C: `cargo run -p stampede-sfu --example sfu -- [PORT] [RTC_PORT]`.
//!
//! `stampede sfu` is the real command; this is for trying the library by itself. Key and secret
//! are the defaults of [`SfuOptions`]. `SFU_CORES`, `SFU_WORKERS` and `SFU_IMPAIR`
//! (`loss=1%,burst=5`) set what their names say; the ledger's totals are printed every five
//! seconds.

#![allow(clippy::print_stdout)]

use std::time::Duration;

use stampede_sfu::{Sfu, SfuOptions};

fn variable<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let mut args = std::env::args().skip(1);
    let mut options = SfuOptions {
        port: args.next().map_or(Ok(7880), |port| port.parse())?,
        rtc_port: args.next().map_or(Ok(7882), |port| port.parse())?,
        workers: variable("SFU_WORKERS").unwrap_or(1),
        cores: variable("SFU_CORES").into_iter().collect(),
        ..SfuOptions::default()
    };
    options.impair = variable("SFU_IMPAIR").into_iter().collect();
    let sfu = Sfu::start(options)?;
    println!("{} media {} {}", sfu.url(), sfu.rtc_addr(), sfu.backend_report().reason);
    loop {
        std::thread::sleep(Duration::from_secs(5));
        let ledger = sfu.ledger()?;
        println!("{}", serde_json::to_string(&(&ledger.totals, &ledger.workers))?);
    }
}
