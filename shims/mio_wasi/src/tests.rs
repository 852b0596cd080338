//! The table and the selector, with a host that does as it is told.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::time::Duration;

use crate::abi::{Answer, CLOCK, Direction, EXIST, Errno, Host, INTR, INVAL, Subscription};
use crate::events::{Event, Token};
use crate::interest::Interest;
use crate::selector::Selector;
use crate::table::{Key, Table, Writing, moved_less};

const BADF: Errno = 8;
const NOSYS: Errno = 52;
const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);
const READ: u8 = Direction::Read as u8;
const WRITE: u8 = Direction::Write as u8;

/// What the host does with one poll. Without any of these it answers as the sockets are.
enum Step {
    /// After so long, a signal.
    Interrupt(Duration),
    /// The poll that follows one.
    Unclean,
    /// The call as a whole fails.
    Fail(Errno),
    /// One descriptor cannot be watched.
    Refuse(u64, Errno),
    Silence,
}

#[derive(Default)]
struct Fake {
    now: Duration,
    script: VecDeque<Step>,
    /// Always interrupted.
    hopeless: bool,
    ready: BTreeSet<(u64, u8)>,
    asked: Vec<Vec<Subscription>>,
}

impl Fake {
    fn answer(
        &mut self,
        list: &[Subscription],
        refused: Option<(u64, Errno)>,
        otherwise: Option<Errno>,
    ) -> Vec<Answer> {
        let mut answers = Vec::new();
        for one in list.iter().filter(|one| one.userdata != CLOCK) {
            match refused {
                Some((descriptor, error)) if descriptor == one.subject => answers.push(Answer::to(one, error)),
                _ if self.ready.contains(&(one.subject, one.kind)) => answers.push(Answer::to(one, 0)),
                _ => answers.extend(otherwise.map(|error| Answer::to(one, error))),
            }
        }
        if let (true, Some(clock)) = (answers.is_empty(), list.iter().find(|one| one.userdata == CLOCK)) {
            self.now += Duration::from_nanos(clock.timeout);
            answers.push(Answer::to(clock, 0));
        }
        answers
    }
}

impl Host for &mut Fake {
    fn poll(&mut self, list: &[Subscription], answers: &mut [Answer]) -> Result<usize, Errno> {
        self.asked.push(list.to_vec());
        let given = match self.script.pop_front() {
            _ if self.hopeless => list.iter().map(|one| Answer::to(one, INTR)).collect(),
            Some(Step::Interrupt(after)) => {
                self.now += after;
                list.iter().map(|one| Answer::to(one, INTR)).collect()
            }
            Some(Step::Unclean) => self.answer(list, None, Some(EXIST)),
            Some(Step::Fail(error)) => return Err(error),
            Some(Step::Refuse(descriptor, error)) => self.answer(list, Some((descriptor, error)), None),
            Some(Step::Silence) => Vec::new(),
            None if list.is_empty() => return Err(INVAL),
            None => self.answer(list, None, None),
        };
        answers[..given.len()].copy_from_slice(&given);
        Ok(given.len())
    }

    fn now(&mut self) -> Duration {
        self.now
    }
}

fn select(host: &mut Fake, table: &mut Table, timeout: Option<Duration>) -> io::Result<Vec<Event>> {
    let mut events = Vec::new();
    Selector::new(host).select(table, &mut events, timeout)?;
    Ok(events)
}

fn now(host: &mut Fake, table: &mut Table) -> Vec<(usize, bool, bool, bool)> {
    let mut events = select(host, table, Some(Duration::ZERO)).unwrap();
    events.sort_by_key(|event| event.token());
    events.iter().map(|it| (it.token().0, it.is_readable(), it.is_writable(), it.is_error())).collect()
}

/// A table of readers: their descriptors are ten times their tokens.
fn readers(count: usize) -> (Table, Vec<Key>) {
    let mut table = Table::default();
    let keys = (1..=count).map(|token| add(&mut table, token, Interest::READABLE, Writing::Unknown)).collect();
    (table, keys)
}

fn add(table: &mut Table, token: usize, interest: Interest, writing: Writing) -> Key {
    table.add(u32::try_from(token * 10).unwrap(), Token(token), interest, writing).unwrap()
}

fn without_time(asked: &[Subscription]) -> Vec<(u64, u8, u64)> {
    asked.iter().map(|one| (one.userdata, one.kind, one.subject)).collect()
}

#[test]
fn an_interrupted_poll_is_repeated_for_the_same_list_until_it_is_clean() {
    let (mut table, _) = readers(3);
    let mut host = Fake { ready: [(20, READ)].into(), ..Fake::default() };
    host.script = [Step::Interrupt(Duration::ZERO), Step::Interrupt(Duration::ZERO)].into();
    host.script.extend([Step::Fail(EXIST), Step::Fail(INTR)]);
    let events = select(&mut host, &mut table, Some(Duration::from_secs(1))).unwrap();
    assert_eq!(events.iter().map(Event::token).collect::<Vec<_>>(), [Token(2)]);
    assert!(!events[0].is_error());
    assert_eq!(host.asked.len(), 5);
    assert!(host.asked.iter().all(|asked| without_time(asked) == without_time(&host.asked[0])), "{:?}", host.asked);
}

#[test]
fn what_is_ready_in_the_poll_after_an_interrupted_one_is_told_and_the_others_go_on_waiting() {
    let (mut table, _) = readers(3);
    let mut host = Fake { ready: [(20, READ)].into(), ..Fake::default() };
    host.script = [Step::Interrupt(Duration::ZERO), Step::Unclean].into();
    assert_eq!(now(&mut host, &mut table), [(2, true, false, false)]);
    assert_eq!(table.list(), [(10, READ), (30, READ)]);
}

#[test]
fn a_poll_in_which_all_are_there_already_is_repeated() {
    let (mut table, _) = readers(2);
    let mut host = Fake { script: [Step::Interrupt(Duration::ZERO), Step::Unclean].into(), ..Fake::default() };
    assert_eq!(now(&mut host, &mut table), []);
    assert_eq!(host.asked.len(), 3);
}

#[test]
fn the_time_goes_on_over_interruptions() {
    let (mut table, _) = readers(1);
    let script = [Step::Interrupt(Duration::from_millis(30)), Step::Interrupt(Duration::from_millis(5))];
    let mut host = Fake { script: script.into(), ..Fake::default() };
    assert!(select(&mut host, &mut table, Some(Duration::from_millis(50))).unwrap().is_empty());
    assert_eq!(host.now, Duration::from_millis(50));
    let times: Vec<_> = host.asked.iter().map(|asked| Duration::from_nanos(asked[1].timeout).as_millis()).collect();
    assert_eq!(times, [50, 20, 15]);
}

#[test]
fn a_poll_that_was_interrupted_when_its_time_was_over_is_still_repeated() {
    let (mut table, _) = readers(1);
    let mut host = Fake { script: [Step::Interrupt(Duration::from_secs(9))].into(), ..Fake::default() };
    assert!(select(&mut host, &mut table, Some(Duration::from_millis(50))).unwrap().is_empty());
    let times: Vec<_> = host.asked.iter().map(|asked| asked[1].timeout).collect();
    assert_eq!(times, [50_000_000, 1]);
}

#[test]
fn a_host_that_is_always_interrupted_is_asked_a_bounded_number_of_times_with_pauses() {
    let (mut table, _) = readers(1);
    let mut host = Fake { hopeless: true, ..Fake::default() };
    assert!(select(&mut host, &mut table, None).unwrap().is_empty());
    let (pauses, polls): (Vec<_>, Vec<_>) = host.asked.iter().partition(|asked| asked[0].userdata == CLOCK);
    assert_eq!(polls.len(), 200);
    assert_eq!(pauses.len(), 180);
}

#[test]
fn a_descriptor_that_cannot_be_watched_concerns_its_owner_alone() {
    let (mut table, _) = readers(3);
    let mut host = Fake { ready: [(10, READ)].into(), ..Fake::default() };
    host.script = [Step::Refuse(20, BADF)].into();
    assert_eq!(now(&mut host, &mut table), [(1, true, false, false), (2, true, true, true)]);
    assert_eq!(table.list(), [(30, READ)]);
}

#[test]
fn an_error_that_asking_again_does_not_help_against_is_returned() {
    let (mut table, _) = readers(1);
    let mut host = Fake { script: [Step::Fail(NOSYS)].into(), ..Fake::default() };
    assert_eq!(select(&mut host, &mut table, None).unwrap_err().raw_os_error(), Some(NOSYS.into()));
    assert_eq!(table.list(), [(10, READ)]);
}

#[test]
fn what_nobody_reads_is_told_once() {
    let (mut table, keys) = readers(1);
    let mut host = Fake { ready: [(10, READ)].into(), ..Fake::default() };
    assert_eq!(now(&mut host, &mut table), [(1, true, false, false)]);
    assert_eq!(now(&mut host, &mut table), []);
    table.wait(keys[0], Direction::Read);
    assert_eq!(now(&mut host, &mut table), [(1, true, false, false)]);
}

#[test]
fn room_is_asked_for_after_a_write_that_needed_more_and_until_it_is_told() {
    let mut table = Table::default();
    let key = add(&mut table, 1, BOTH, Writing::Ready);
    assert_eq!(table.list(), [(10, READ)]);
    table.wait(key, Direction::Write);
    table.wait(key, Direction::Write);
    assert_eq!(table.list(), [(10, READ), (10, WRITE)]);

    let mut host = Fake { ready: [(10, WRITE)].into(), ..Fake::default() };
    assert!(table.tell_ready(&mut Vec::new()));
    assert_eq!(now(&mut host, &mut table), [(1, false, true, false)]);
    assert_eq!(table.list(), [(10, READ)]);
}

#[test]
fn tokio_waits_after_less_than_there_could_have_been() {
    assert!(moved_less(&Ok(1), 2));
    assert!(moved_less(&Err(io::ErrorKind::WouldBlock.into()), 2));
    assert!(!moved_less(&Ok(2), 2), "there may be more");
    assert!(!moved_less(&Ok(0), 2), "there is no more");
    assert!(!moved_less(&Err(io::ErrorKind::ConnectionReset.into()), 2));
}

#[test]
fn an_accepted_connection_has_room_without_a_poll_but_others_are_not_kept_waiting() {
    let mut table = Table::default();
    let mut host = Fake::default();
    let mut selector = Selector::new(&mut host);
    let mut events = Vec::new();
    let mut turn = |table: &mut Table, events: &mut Vec<Event>, token| {
        add(table, token, BOTH, Writing::Ready);
        selector.select(table, events, None).unwrap();
        events.iter().map(|event| (event.token(), event.is_writable())).collect::<Vec<_>>()
    };
    assert_eq!(turn(&mut table, &mut events, 1), [(Token(1), true)]);
    assert_eq!(turn(&mut table, &mut events, 2), [(Token(2), true)]);
    assert_eq!(turn(&mut table, &mut events, 3), [(Token(3), true)]);
    let polls: Vec<_> =
        host.asked.iter().map(|asked| asked.iter().map(|one| one.subject).collect::<Vec<_>>()).collect();
    assert_eq!(polls, [[10, 20, 1]], "of the second turn alone, with a clock");
    assert_eq!(host.asked[0][2].timeout, 1);
}

#[test]
fn what_is_known_already_does_not_hide_an_interruption() {
    let mut table = Table::default();
    let mut host = Fake { script: [Step::Interrupt(Duration::ZERO), Step::Unclean].into(), ..Fake::default() };
    let mut selector = Selector::new(&mut host);
    let mut events = Vec::new();
    for token in 1..=2 {
        add(&mut table, token, BOTH, Writing::Ready);
        selector.select(&mut table, &mut events, None).unwrap();
        assert_eq!(events.iter().map(Event::token).collect::<Vec<_>>(), [Token(token)]);
    }
    assert_eq!(host.asked.len(), 2);
}

#[test]
fn a_connection_that_is_being_made_waits_for_room_and_a_listener_never_does() {
    let mut table = Table::default();
    add(&mut table, 1, BOTH, Writing::Unknown);
    let listener = add(&mut table, 2, BOTH, Writing::Never);
    table.wait(listener, Direction::Write);
    assert_eq!(table.list(), [(10, READ), (10, WRITE), (20, READ)]);
}

#[test]
fn an_answer_for_a_former_owner_is_nobodys() {
    let (mut table, keys) = readers(2);
    let mut host = Fake::default();
    now(&mut host, &mut table);
    let former = host.asked[0][0];
    table.remove(keys[0]);
    table.remove(keys[0]);
    // The same place, and even the same descriptor.
    add(&mut table, 1, Interest::READABLE, Writing::Unknown);
    assert_eq!(table.tell(former.userdata, Direction::Read), None);
    table.wait(keys[0], Direction::Read);
    assert_eq!(table.list(), [(10, READ), (20, READ)]);
    host.ready = [(10, READ)].into();
    assert_eq!(now(&mut host, &mut table), [(1, true, false, false)]);
}

#[test]
fn a_closed_connection_is_not_told_that_it_has_room() {
    let mut table = Table::default();
    let key = add(&mut table, 1, BOTH, Writing::Ready);
    table.remove(key);
    assert!(!table.tell_ready(&mut Vec::new()));
    assert_eq!(table.list(), []);
}

#[test]
fn a_host_that_returns_without_a_word_is_asked_again_after_a_pause() {
    let (mut table, _) = readers(1);
    let mut host = Fake { script: [Step::Silence].into(), ..Fake::default() };
    assert!(select(&mut host, &mut table, Some(Duration::from_millis(5))).unwrap().is_empty());
    let times: Vec<_> = host.asked.iter().map(|asked| asked.last().unwrap().timeout / 1_000_000).collect();
    assert_eq!(times, [5, 1, 4]);
}

#[test]
fn with_nothing_to_wait_for_a_poll_takes_its_time() {
    let mut table = Table::default();
    let mut host = Fake::default();
    assert!(select(&mut host, &mut table, None).unwrap().is_empty());
    assert!(host.now > Duration::from_millis(100), "{:?}", host.now);
    assert!(select(&mut host, &mut table, Some(Duration::from_secs(5))).unwrap().is_empty());
    assert!(host.now > Duration::from_secs(5));
}

#[test]
fn the_list_is_what_is_waited_for_whatever_the_order() {
    let mut table = Table::default();
    let mut keys = Vec::new();
    let mut waiting = BTreeSet::new();
    let mut seed = 7_usize;
    let mut random = move |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for token in 1..=5_000 {
        let (key, descriptor) = (add(&mut table, token, BOTH, Writing::Unknown), token as u64 * 10);
        keys.push((key, descriptor));
        waiting.extend([(descriptor, READ), (descriptor, WRITE)]);
        let (key, descriptor) = keys[random(keys.len())];
        match random(4) {
            0 => table.wait(key, Direction::Read),
            1 => {
                let mut host = Fake { ready: [(descriptor, READ)].into(), ..Fake::default() };
                let expected = waiting.remove(&(descriptor, READ));
                assert_eq!(!now(&mut host, &mut table).is_empty(), expected);
                continue;
            }
            _ => {
                table.remove(key);
                keys.retain(|(other, _)| *other != key);
                waiting.retain(|(other, _)| *other != descriptor);
                continue;
            }
        }
        waiting.insert((descriptor, READ));
    }
    assert_eq!(table.list(), waiting.into_iter().collect::<Vec<_>>());
}
