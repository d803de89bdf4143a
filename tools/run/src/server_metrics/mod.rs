//! `--server-metrics URL`: the server's own figures, scraped once a second onto the run's axis.

mod figures;
mod parse;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use reqwest::Url;

use crate::clock::now;
use crate::network::Network;
use figures::{Figures, Reading};
use stampede_output::with_causes;
use stampede_report::types::{ServerMetrics, ServerSecond, ServerTarget};
use stampede_scenario::shown;

/// Pause between two scrapes of a server.
const SCRAPE_EVERY: Duration = Duration::from_secs(1);
/// How long an answer may take.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the last scrape waits for the server to settle its accounts: livekit-server adds a
/// track's last seconds when the track is closed (`sfu/connectionquality/connectionstats.go`).
const LAST_SCRAPE_DELAY: Duration = Duration::from_millis(1_500);
/// Longest answer read; a longer one is a failed scrape.
const BODY_BYTES_MAX: usize = 16 << 20;

/// One server.
struct Target {
    url: Url,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    /// `None` for good if the scrape before the first join failed.
    first: Option<Reading>,
    before: Option<Reading>,
    /// `None` again as soon as a scrape fails.
    latest: Option<Reading>,
    scrapes: u64,
    failed: u64,
    error: Option<String>,
    participants_max: Option<f64>,
    rss_bytes_max: Option<f64>,
}

impl State {
    fn succeeded(&mut self, reading: Reading) {
        if self.scrapes == 0 {
            self.first = Some(reading);
        }
        self.scrapes += 1;
        self.before = self.latest.replace(reading);
        let most = |most: Option<f64>, now: Option<f64>| match (most, now) {
            (Some(most), Some(now)) => Some(most.max(now)),
            (most, now) => most.or(now),
        };
        self.participants_max = most(self.participants_max, reading.figures.participants);
        self.rss_bytes_max = most(self.rss_bytes_max, reading.figures.rss_bytes);
    }

    fn failed(&mut self, error: String) {
        self.scrapes += 1;
        self.failed += 1;
        self.before = None;
        self.latest = None;
        self.error = Some(error);
    }
}

/// All servers of a run.
pub(crate) struct Scraper {
    http: reqwest::Client,
    targets: Vec<Target>,
}

impl Scraper {
    /// A scraper for these addresses.
    ///
    /// # Errors
    /// What the HTTP client said.
    pub(crate) fn new(urls: &[Url], network: &Network) -> Result<Self, String> {
        let http = network
            .http_client()
            .timeout(SCRAPE_TIMEOUT)
            .build()
            .map_err(|error| format!("--server-metrics: no HTTP client: {error}"))?;
        let target = |url: &Url| Target { url: url.clone(), state: RefCell::default() };
        Ok(Self { http, targets: urls.iter().map(target).collect() })
    }

    /// True if there is nothing to scrape.
    pub(crate) fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }

    /// Scrapes once, before anybody joins: the run's figures begin here.
    pub(crate) async fn begin(&self) {
        for target in &self.targets {
            self.scrape(target).await;
        }
    }

    /// Scrapes until the task is dropped, each server on its own schedule.
    pub(crate) async fn run(self: Rc<Self>) {
        let each = (0..self.targets.len()).map(|index| {
            let scraper = Rc::clone(&self);
            tokio::task::spawn_local(async move {
                let mut ticks = tokio::time::interval(SCRAPE_EVERY);
                ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
                // `begin` was the first.
                ticks.tick().await;
                loop {
                    ticks.tick().await;
                    scraper.scrape(&scraper.targets[index]).await;
                }
            })
        });
        let tasks = Tasks(each.collect());
        std::future::pending::<()>().await;
        drop(tasks);
    }

    async fn scrape(&self, target: &Target) {
        match self.read(&target.url).await {
            Ok(figures) => {
                let reading = Reading { at: now(), figures };
                target.state.borrow_mut().succeeded(reading);
            }
            Err(error) => {
                let mut state = target.state.borrow_mut();
                if state.failed == 0 {
                    tracing::warn!("--server-metrics {}: {error}", shown(&target.url));
                }
                state.failed(error);
            }
        }
    }

    async fn read(&self, url: &Url) -> Result<Figures, String> {
        // The URL may hold a password, so it stays out of the error.
        let plain = |error: reqwest::Error| with_causes(&error.without_url());
        let mut response = self.http.get(url.clone()).send().await.map_err(plain)?;
        if !response.status().is_success() {
            return Err(format!("HTTP status {}", response.status()));
        }
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(plain)? {
            if body.len() + part.len() > BODY_BYTES_MAX {
                return Err(format!("the answer is longer than {BODY_BYTES_MAX} bytes"));
            }
            body.extend_from_slice(&part);
        }
        let figures = Figures::read(&String::from_utf8_lossy(&body));
        if figures == Figures::default() {
            return Err("the answer holds none of LiveKit's or Go's metrics".to_owned());
        }
        Ok(figures)
    }

    /// The latest second of all servers together; `None` while any of them has no two answers.
    pub(crate) fn second(&self) -> Option<ServerSecond> {
        let (mut before, mut after) = (None, None);
        for target in &self.targets {
            let state = target.state.borrow();
            add(&mut before, state.before?);
            add(&mut after, state.latest?);
        }
        Some(figures::second(&before?, &after?))
    }

    /// Scrapes once more, when everybody has left, and adds it all up.
    pub(crate) async fn finish(&self) -> ServerMetrics {
        tokio::time::sleep(LAST_SCRAPE_DELAY).await;
        for target in &self.targets {
            self.scrape(target).await;
        }
        let (mut first, mut last) = (None, None);
        let mut metrics = ServerMetrics::default();
        let mut complete = true;
        // As with `complete`: without one of the servers they are not known.
        let (mut participants_max, mut rss_bytes_max) = (Some(0), Some(0));
        for target in &self.targets {
            let state = target.state.borrow();
            metrics.targets.push(ServerTarget {
                url: shown(&target.url),
                scrapes: state.scrapes,
                failed: state.failed,
                error: state.error.clone(),
            });
            match (state.first, state.latest) {
                (Some(from), Some(to)) => {
                    add(&mut first, from);
                    add(&mut last, to);
                }
                // A sum without one of the servers would be a wrong one.
                _ => complete = false,
            }
            let most =
                |sum: Option<u64>, value: Option<f64>| Some(sum?.saturating_add(value? as u64));
            participants_max = most(participants_max, state.participants_max);
            rss_bytes_max = most(rss_bytes_max, state.rss_bytes_max);
        }
        if !self.targets.is_empty() {
            metrics.participants_max = participants_max;
            metrics.rss_bytes_max = rss_bytes_max;
        }
        if let (true, Some(first), Some(last)) = (complete, first, last) {
            figures::total(&first, &last, &mut metrics);
        }
        metrics
    }
}

/// Adds a server's reading; the sum is as old as its newest part.
fn add(sum: &mut Option<Reading>, reading: Reading) {
    match sum {
        None => *sum = Some(reading),
        Some(sum) => {
            sum.at = sum.at.max(reading.at);
            sum.figures.merge(&reading.figures);
        }
    }
}

/// Tasks that end with the one that holds them.
struct Tasks(Vec<tokio::task::JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use stampede_signaling::{Proxies, TlsSetup};

    use super::*;

    fn reading(at: Instant, packets_out: f64) -> Reading {
        let packets_out = Some(packets_out);
        Reading { at, figures: Figures { packets_out, ..Figures::default() } }
    }

    fn scraper(urls: &[&str]) -> Scraper {
        let urls: Vec<Url> = urls.iter().map(|url| Url::parse(url).unwrap()).collect();
        let tls = TlsSetup::new().unwrap();
        let network = Network { tls, proxies: Proxies::none(), proxy: None, dial: None };
        Scraper::new(&urls, &network).unwrap()
    }

    #[test]
    fn a_failed_scrape_makes_the_second_unknown_and_is_counted() {
        let scraper = scraper(&["http://a:1/metrics", "http://b:1/metrics"]);
        let at = now();
        for target in &scraper.targets {
            let mut state = target.state.borrow_mut();
            state.succeeded(reading(at, 10.0));
            state.succeeded(reading(at + Duration::from_secs(1), 110.0));
        }
        assert_eq!(scraper.second().unwrap().packets_out, Some(200));
        scraper.targets[1].state.borrow_mut().failed("no route".to_owned());
        assert!(scraper.second().is_none());
        let state = scraper.targets[1].state.borrow();
        assert_eq!((state.scrapes, state.failed), (3, 1));
        assert_eq!(state.first.unwrap().figures.packets_out, Some(10.0), "the run's sum stays");
    }
}
