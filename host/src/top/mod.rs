//! `usher top`: how the workers are doing, on a terminal or in lines for other programs.

mod rates;
mod sample;
mod screen;
mod table;

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context, Result};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use crate::cli::Top;
use sample::Sample;
use screen::Screen;

/// Shows a running usher until it has shown enough, or is interrupted.
pub fn run(options: &Top) -> Result<ExitCode> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        // What is not chosen is dropped, and puts the terminal back.
        tokio::select! {
            shown = show(options) => shown?,
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        Ok(ExitCode::SUCCESS)
    })
}

async fn show(options: &Top) -> Result<()> {
    let first = Sample::take(options.admin).await?;
    let mut ticks = interval_at(Instant::now() + options.interval, options.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    if !io::stdout().is_terminal() {
        return list(options, first, ticks).await;
    }
    let last = draw(options, first, ticks).await?;
    print(&last).map(drop)
}

/// Prints lines, one for each worker and interval.
async fn list(options: &Top, first: Sample, mut ticks: Interval) -> Result<()> {
    let head = |sample: &Sample| {
        let columns = format!("{:<20} {}", "TIME", table::columns());
        print(&[format!("# {}", table::title(sample, options.admin)), columns])
    };
    let mut is_read = head(&first)?;
    let (mut before, mut left) = (first, options.count);
    while is_read && left != Some(0) {
        ticks.tick().await;
        let now = Sample::take(options.admin).await.context("usher went away; its log says why")?;
        if !now.is_of_same(&before) {
            head(&now)?;
        }
        let moment = table::moment(SystemTime::now());
        let lines = now.lines(Some(&before));
        is_read = print(&lines.iter().map(|line| format!("{moment} {}", table::line(line))).collect::<Vec<_>>())?;
        left = left.map(|left| left - 1);
        before = now;
    }
    Ok(())
}

/// Draws on the terminal. Gives what was drawn last. An usher that goes away may come back.
async fn draw(options: &Top, first: Sample, mut ticks: Interval) -> Result<Vec<String>> {
    let screen = Screen::enter().context("cannot draw")?;
    let mut drawn = picture(options, &first, None);
    screen.draw(&drawn).context("cannot draw")?;
    let (mut before, mut left) = (Some(first), options.count);
    while left != Some(0) {
        ticks.tick().await;
        let now = match Sample::take(options.admin).await {
            Ok(now) => {
                drawn = picture(options, &now, before.as_ref());
                left = left.map(|left| left - u64::from(before.is_some()));
                Some(now)
            }
            Err(error) => {
                drawn = vec![format!("{error:#}"), "Waiting for it to come back; Ctrl-C ends this.".to_owned()];
                None
            }
        };
        screen.draw(&drawn).context("cannot draw")?;
        before = now;
    }
    Ok(drawn)
}

fn picture(options: &Top, now: &Sample, before: Option<&Sample>) -> Vec<String> {
    let head = [table::title(now, options.admin), table::columns()];
    head.into_iter().chain(now.lines(before).iter().map(table::line)).collect()
}

/// Prints lines. Gives whether somebody reads them: whoever has seen enough is no failure of ours.
fn print(lines: &[String]) -> Result<bool> {
    let mut text = lines.join("\n");
    text.push('\n');
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("cannot write to standard output"),
    }
}
