//! What all workers counted, those that are gone among them, so that no total gets less when one ends.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::exposition::Exposition;

/// The totals of all workers. Its clones are the same ledger.
#[derive(Debug, Clone, Default)]
pub struct Ledger(Arc<Mutex<Book>>);

#[derive(Debug, Default)]
struct Book {
    /// What those counted that are gone.
    retained: Exposition,
    /// Those that live, by their lives.
    accounts: BTreeMap<u64, Known>,
}

/// What is known of a worker.
#[derive(Debug, Default)]
struct Known {
    /// What it said last.
    said: Exposition,
    /// Whether it was complained of since.
    is_blamed: bool,
}

impl Ledger {
    /// Opens the account of a new worker.
    pub fn open(&self, life: u64) -> Account {
        self.book().accounts.insert(life, Known::default());
        Account { ledger: self.clone(), life }
    }

    /// Notes what a worker says. What comes when it is gone is of no interest: it was closed by what was known.
    pub fn note(&self, life: u64, said: Exposition) {
        if let Some(account) = self.book().accounts.get_mut(&life) {
            account.said.advance(said);
            account.is_blamed = false;
        }
    }

    /// Notes that a worker said nothing that can be used. Gives whether that is new.
    pub fn blame(&self, life: u64) -> bool {
        self.book().accounts.get_mut(&life).is_some_and(|account| !std::mem::replace(&mut account.is_blamed, true))
    }

    /// The totals, and the gauges of these workers: the number and the life of each.
    pub fn merged(&self, workers: &BTreeMap<usize, u64>) -> Exposition {
        let book = self.book();
        let mut all = book.retained.clone();
        book.accounts.values().for_each(|account| all.add(&account.said));
        for (worker, life) in workers {
            if let Some(account) = book.accounts.get(life) {
                all.add_gauges(&account.said, *worker);
            }
        }
        all
    }

    /// What a worker said last, while it lives.
    pub fn said(&self, life: u64) -> Option<Exposition> {
        self.book().accounts.get(&life).map(|account| account.said.clone())
    }

    fn close(&self, life: u64) {
        let mut book = self.book();
        if let Some(account) = book.accounts.remove(&life) {
            book.retained.add(&account.said);
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The account of a worker, closed when it is dropped: what the worker counted then stays in the totals.
#[derive(Debug)]
pub struct Account {
    ledger: Ledger,
    life: u64,
}

impl Drop for Account {
    fn drop(&mut self) {
        self.ledger.close(self.life);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::parse::parse;

    fn said(count: u32, gauge: u32) -> Exposition {
        parse(&format!("# TYPE c_total counter\nc_total {count}\n# TYPE g gauge\ng {gauge}\n")).unwrap()
    }

    fn total(ledger: &Ledger) -> String {
        let text = ledger.merged(&BTreeMap::new()).to_string();
        text.lines().find_map(|line| line.strip_prefix("c_total ")).unwrap_or_default().to_owned()
    }

    #[test]
    fn totals_stay_when_a_worker_is_replaced() {
        let ledger = Ledger::default();
        let first = ledger.open(1);
        let _other = ledger.open(2);
        ledger.note(1, said(5, 1));
        ledger.note(2, said(10, 1));
        assert_eq!(total(&ledger), "15");
        let _next = ledger.open(3);
        drop(first);
        assert_eq!(total(&ledger), "15");
        ledger.note(3, said(2, 1));
        assert_eq!(total(&ledger), "17");
    }

    #[test]
    fn answers_that_overtake_each_other_or_come_too_late_count_once() {
        let ledger = Ledger::default();
        let account = ledger.open(1);
        ledger.note(1, said(7, 1));
        ledger.note(1, said(5, 1));
        assert_eq!(total(&ledger), "7");
        drop(account);
        ledger.note(1, said(9, 1));
        assert_eq!(total(&ledger), "7");
    }

    #[test]
    fn a_worker_is_blamed_once_until_it_answers_again() {
        let ledger = Ledger::default();
        let account = ledger.open(1);
        assert_eq!([ledger.blame(1), ledger.blame(1)], [true, false]);
        ledger.note(1, said(1, 1));
        assert!(ledger.blame(1));
        drop(account);
        assert!(!ledger.blame(1));
    }

    #[test]
    fn gauges_are_of_those_that_are_named_and_go_with_them() {
        let ledger = Ledger::default();
        let account = ledger.open(1);
        let _draining = ledger.open(2);
        ledger.note(1, said(1, 4));
        ledger.note(2, said(1, 9));
        let named = BTreeMap::from([(3, 1)]);
        assert!(ledger.merged(&named).to_string().ends_with("g{worker=\"3\"} 4\n"));
        drop(account);
        assert!(!ledger.merged(&named).to_string().contains("g{"));
    }
}
