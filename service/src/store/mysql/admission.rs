//! Whether it is worth waiting for a connection: an operation that would not be served in its time is refused
//! at once, so that the queue never grows beyond what the database can serve.
//!
//! The wait is foretold from how many are before it and how long operations have taken of late. Where nothing
//! is known, an operation is taken to cost nothing: the wait itself shows what it costs, and whoever waits is
//! judged anew from time to time. Times are given, never looked at.

use std::time::Duration;

use tokio::time::Instant;

/// How much the latest operation counts in the mean: a stall shows within a few operations, and a few
/// dozen forget it.
const WEIGHT: f64 = 0.125;

/// The queue for connections, as numbers.
#[derive(Debug)]
pub struct Admission {
    connections: usize,
    /// Operations that wait now.
    waiting: usize,
    /// Operations that were given a connection so far.
    granted: u64,
    /// How long an operation has a connection, in seconds: an exponentially weighted mean.
    mean: f64,
    /// When an operation was last given a connection, or gave one back.
    moved: Instant,
}

/// A place in the queue.
#[derive(Debug, Clone, Copy)]
pub struct Ticket {
    /// How many were before it when it was given.
    ahead: usize,
    /// What was granted by then. The queue is fair, so whatever is granted later goes to those ahead.
    granted: u64,
}

impl Admission {
    /// A queue that nobody waits in.
    pub fn new(connections: usize, now: Instant) -> Self {
        Self { connections, waiting: 0, granted: 0, mean: 0.0, moved: now }
    }

    /// Operations that wait now.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Lets an operation wait that has so much time `left`, if it is worth it: see [`Self::is_worth_it`].
    /// Whoever waits ends it by [`Self::leave`].
    pub fn join(&mut self, now: Instant, left: Duration) -> Option<Ticket> {
        let ticket = Ticket { ahead: self.waiting, granted: self.granted };
        let joins = self.is_worth_it(ticket, now, left);
        self.waiting += usize::from(joins);
        joins.then_some(ticket)
    }

    /// One waits no longer.
    pub fn leave(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
    }

    /// An operation is given a connection.
    pub fn grant(&mut self, now: Instant) {
        self.granted += 1;
        self.moved = now;
    }

    /// An operation is over that `took` so long. One that is not `done` was given up, and says only that an
    /// operation may take longer than that: the less time it had had left, the less it says.
    pub fn end(&mut self, now: Instant, took: Duration, done: bool) {
        self.moved = now;
        let took = took.as_secs_f64();
        if done || took > self.mean {
            self.mean = mix(self.mean, took, WEIGHT);
        }
    }

    /// Whether an operation is likely to be done in the time that is `left`: when all ahead of it are, it, and
    /// those that have the connections now. As many as there are connections may always wait, as long as any
    /// time is left: by them it shows that the database is better.
    pub fn is_worth_it(&self, ticket: Ticket, now: Instant, left: Duration) -> bool {
        let granted = usize::try_from(self.granted - ticket.granted).unwrap_or(usize::MAX);
        let ahead = ticket.ahead.saturating_sub(granted);
        let rounds = (ahead + 1 + self.connections) as f64 / self.connections as f64;
        let needed = rounds * self.expected(now);
        !left.is_zero() && (ahead < self.connections || needed <= left.as_secs_f64())
    }

    /// How long an operation is expected to take, in seconds. All connections are in use when somebody waits, so
    /// if nothing has moved for longer than the mean, it is what the mean would be if all of them ended now.
    fn expected(&self, now: Instant) -> f64 {
        let still = now.saturating_duration_since(self.moved).as_secs_f64();
        mix(self.mean, still.max(self.mean), 1.0 - (1.0 - WEIGHT).powf(self.connections as f64))
    }
}

/// The mean of two, of which the second has this weight.
fn mix(first: f64, second: f64, weight: f64) -> f64 {
    first + (second - first) * weight
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(5);

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Clients at a database with two connections, in a time of its own.
    struct World {
        admission: Admission,
        now: Instant,
        /// Those who wait, with their deadlines.
        queue: VecDeque<(Ticket, Instant)>,
    }

    impl World {
        const CONNECTIONS: usize = 2;

        fn new() -> Self {
            let now = Instant::now();
            Self { admission: Admission::new(Self::CONNECTIONS, now), now, queue: VecDeque::new() }
        }

        /// A world in which `count` operations were done, each in that time.
        fn after(count: usize, took: Duration) -> Self {
            let mut world = Self::new();
            (0..count).for_each(|_| world.admission.end(world.now, took, true));
            world
        }

        /// So many come at once; gives how many were let in.
        fn come(&mut self, count: usize) -> usize {
            let tickets = (0..count).filter_map(|_| self.admission.join(self.now, DEADLINE));
            let before = self.queue.len();
            let until = self.now + DEADLINE;
            let tickets: Vec<_> = tickets.map(|ticket| (ticket, until)).collect();
            self.queue.extend(tickets);
            self.queue.len() - before
        }

        /// Time passes in which nothing moves.
        fn stand_still(&mut self, time: Duration) {
            self.now += time;
        }

        /// All who wait are judged; gives how many are left.
        fn judge(&mut self) -> usize {
            let (admission, now) = (&mut self.admission, self.now);
            self.queue.retain(|&(ticket, until)| {
                let stays = admission.is_worth_it(ticket, now, until.saturating_duration_since(now));
                if !stays {
                    admission.leave();
                }
                stays
            });
            self.queue.len()
        }

        /// Each connection does operations of that length, for as long as somebody waits, `rounds` at most. Gives
        /// how many of those served were late.
        fn serve(&mut self, rounds: usize, took: Duration) -> usize {
            let mut late = 0;
            for _ in 0..rounds {
                let served: Vec<_> = (0..Self::CONNECTIONS).filter_map(|_| self.queue.pop_front()).collect();
                served.iter().for_each(|_| (self.admission.leave(), self.admission.grant(self.now)).0);
                self.now += took;
                for (_, until) in served {
                    late += usize::from(until < self.now);
                    self.admission.end(self.now, took, true);
                }
            }
            late
        }
    }

    #[test]
    fn thousands_wait_for_a_fast_database_and_all_are_served() {
        for mut world in [World::new(), World::after(100, ms(1))] {
            assert_eq!(world.come(4000), 4000);
            assert_eq!((world.serve(1000, ms(1)), world.judge()), (0, 2000));
            assert_eq!(world.come(2000), 2000);
            assert_eq!((world.serve(2000, ms(1)), world.judge()), (0, 0));
        }
    }

    #[test]
    fn no_more_wait_for_a_slow_database_than_it_can_serve_and_the_others_are_refused_at_once() {
        let mut world = World::after(100, ms(300));
        // Two connections do 33 in the time, and two may be under way.
        assert_eq!(world.come(500), 31);
        assert_eq!(world.come(500), 0);
        assert_eq!(world.serve(15, ms(300)), 0);
        assert_eq!(world.come(500), 30);
    }

    #[test]
    fn a_database_that_is_slow_from_the_start_is_found_out_while_they_wait() {
        let mut world = World::new();
        assert_eq!(world.come(500), 500, "nothing is known");
        world.serve(1, ms(1000));
        let left = world.judge();
        assert!((2..50).contains(&left), "{left} still wait");
        let late: usize = (0..4).map(|_| (world.serve(1, ms(1000)), world.judge()).0).sum();
        assert_eq!(late, 0);
    }

    #[test]
    fn a_stall_empties_the_queue_before_any_deadline() {
        let mut world = World::after(100, ms(1));
        assert_eq!(world.come(500), 500);
        let left: Vec<usize> = [500, 500, 1000, 2000].map(|time| (world.stand_still(ms(time)), world.judge()).1).into();
        assert!(left.is_sorted_by(|a, b| a >= b), "{left:?}");
        assert!(left[0] < 100 && left[3] < 10, "{left:?}");
        world.stand_still(ms(1000));
        assert_eq!(world.judge(), 0, "nobody has time left");
    }

    #[test]
    fn a_hiccup_refuses_nobody_who_will_be_served() {
        let mut world = World::after(100, ms(1));
        assert_eq!(world.come(500), 500);
        world.stand_still(ms(50));
        assert_eq!((world.judge(), world.come(100)), (500, 100));
        assert_eq!(world.serve(300, ms(1)), 0);
    }

    #[test]
    fn a_few_are_let_in_whatever_was_before_and_a_few_dozen_of_them_bring_back_normal_service() {
        let mut world = World::after(100, DEADLINE);
        assert_eq!(world.come(500), 2);
        for _ in 0..40 {
            world.serve(1, ms(1));
            world.come(2);
        }
        assert_eq!(world.come(1000), 1000);
    }

    #[test]
    fn an_operation_that_was_given_up_never_makes_the_database_look_faster() {
        let mut world = World::after(100, ms(1000));
        let mean = world.admission.mean;
        world.admission.end(world.now, ms(10), false);
        assert!((world.admission.mean - mean).abs() < f64::EPSILON);
        world.admission.end(world.now, ms(5000), false);
        assert!(world.admission.mean > mean);
    }

    #[test]
    fn those_ahead_are_counted_down_as_they_are_served() {
        let mut world = World::after(100, ms(100));
        assert_eq!(world.come(90), 90);
        // Half of the time passes, and half of the queue with it.
        assert_eq!(world.serve(25, ms(100)), 0);
        assert_eq!(world.judge(), 40);
    }
}
