//! The metrics of usher and of all its workers, as one.

mod exposition;
mod ledger;
mod own;
mod parse;
mod stats;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hyper::Method;
use tokio::task::JoinSet;
use tokio::time::timeout;

pub use exposition::Exposition;
pub use ledger::{Account, Ledger};
pub use own::Facts;
pub use stats::{Bucket, Requests, Stats, WorkerStats};

use crate::supervisor::{Overview, Shown, State};
use crate::{client, say};

/// The media type of the text form.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How long a worker may take to say what it counted: well below what Prometheus waits for us.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Asks a worker what it counted, and notes it.
///
/// # Errors
/// If it does not answer in time, or says nonsense.
pub async fn ask(ledger: &Ledger, life: u64, worker: SocketAddr) -> Result<()> {
    let said = timeout(TIMEOUT, fetch(worker, "/metrics")).await.context("no answer in time")?;
    ledger.note(life, said?);
    Ok(())
}

/// Waits for what a worker says right before it ends, when there is no more to count, and notes it.
///
/// # Errors
/// If it ends without a word, or says nonsense.
pub async fn ask_for_report(ledger: &Ledger, life: u64, worker: SocketAddr) -> Result<()> {
    ledger.note(life, fetch(worker, "/report").await?);
    Ok(())
}

async fn fetch(worker: SocketAddr, path: &str) -> Result<Exposition> {
    let answer = client::request(worker, Method::GET, path).await?;
    ensure!(answer.status.is_success(), "the module does not answer GET {path} ({})", answer.status);
    parse::parse(std::str::from_utf8(&answer.body).context("the answer is not UTF-8")?)
}

/// Asks all workers, and gives what there is to tell.
pub async fn collect(ledger: &Ledger, facts: &Facts, overview: &Overview) -> Exposition {
    let answered = newest(&overview.workers, &ask_all(ledger, &overview.workers).await);
    let mut all = ledger.merged(&answered);
    // Last, so that no worker can say it in our place.
    own::tell(&mut all, facts, overview, &answered);
    all
}

/// Asks all workers, and gives what each has to tell.
pub async fn stats(ledger: &Ledger, facts: &Facts, overview: Overview) -> Stats {
    let answered = ask_all(ledger, &overview.workers).await;
    Stats::new(ledger, facts, overview, &answered)
}

/// Of the lives that answered, the newest one for each number.
fn newest(workers: &[Shown], answered: &BTreeSet<u64>) -> BTreeMap<usize, u64> {
    let mut newest = BTreeMap::new();
    for (worker, life) in workers.iter().filter_map(|shown| Some((shown.worker, shown.process?.0))) {
        if answered.contains(&life) {
            let known = newest.entry(worker).or_insert(life);
            *known = life.max(*known);
        }
    }
    newest
}

/// Asks all workers at once. Gives the lives of those that answered.
async fn ask_all(ledger: &Ledger, workers: &[Shown]) -> BTreeSet<u64> {
    let mut asked = JoinSet::new();
    // One that starts would answer later.
    for shown in workers.iter().filter(|shown| matches!(shown.state, State::Ready | State::Draining)) {
        let Some((life, control)) = shown.process else { continue };
        let (ledger, worker, lasts) = (ledger.clone(), shown.worker, shown.state == State::Ready);
        asked.spawn(async move {
            match ask(&ledger, life, control).await {
                Ok(()) => Some(life),
                Err(error) => {
                    if lasts && ledger.blame(life) {
                        say::log(format_args!("worker {worker} does not say what it counted: {error:#}"));
                    }
                    None
                }
            }
        });
    }
    let mut answered = BTreeSet::new();
    while let Some(result) = asked.join_next().await {
        answered.extend(result.ok().flatten());
    }
    answered
}
