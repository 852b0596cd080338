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
    /// What each of those that live said last, by its life.
    accounts: BTreeMap<u64, Exposition>,
}

impl Ledger {
    /// Opens the account of a new worker.
    pub fn open(&self, life: u64) -> Account {
        self.book().accounts.insert(life, Exposition::default());
        Account { ledger: self.clone(), life }
    }

    /// Notes what a worker says. What comes when it is gone is of no interest: it was closed by what was known.
    pub fn note(&self, life: u64, said: Exposition) {
        if let Some(account) = self.book().accounts.get_mut(&life) {
            account.advance(said);
        }
    }

    /// The totals, and the gauges of these workers: the number and the life of each.
    pub fn merged(&self, workers: &BTreeMap<usize, u64>) -> Exposition {
        let book = self.book();
        let mut all = book.retained.clone();
        book.accounts.values().for_each(|account| all.add(account));
        for (worker, life) in workers {
            if let Some(account) = book.accounts.get(life) {
                all.add_gauges(account, *worker);
            }
        }
        all
    }

    fn close(&self, life: u64) {
        let mut book = self.book();
        if let Some(account) = book.accounts.remove(&life) {
            book.retained.add(&account);
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
