//! How many requests an HTTP tracker takes at the same time, learnt from what its connections did.

/// Requests on one connection at the same time. With answers that take 50 ms they make 2500 a second,
/// and little is lost with a connection.
const MAX_DEPTH: usize = 128;

/// Requests that follow each other for the first time. Nothing follows them until all are answered: a
/// server may answer one and forget the rest, and then the next answer would be taken for theirs.
const TRIAL_DEPTH: usize = 2;

/// The depth that a new connection starts with where pipelining has worked before.
const PROVEN_DEPTH: usize = 32;

/// Connections to a tracker that answers one request after another.
const MAX_ONE_AT_A_TIME: usize = 4;

/// Connections to one that closes the connection after each response, so that the time for opening
/// them counts less.
const MAX_CLOSING: usize = 8;

/// Pipelined connections that broke one after another with next to nothing answered, until pipelining
/// is given up.
const MAX_BREAKS: u32 = 3;

/// Answers of a connection from which on its break does not count against pipelining.
const ENOUGH_ANSWERS: u32 = 64;

/// How HTTP is spoken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum ConnectionMode {
    /// Requests follow each other without waiting, on one connection.
    #[default]
    Pipelined,
    /// Each connection carries one request after another.
    OneAtATime,
    /// Each connection carries one request.
    Closing,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionEnd {
    /// Requests that it answered.
    pub(super) answered: u32,
    /// Requests that were left unanswered.
    pub(super) lost: usize,
    /// The most that followed each other in its last batch.
    pub(super) batch: usize,
    /// Its last answer announced the end.
    pub(super) is_announced: bool,
}

/// What is known of a tracker by one family.
#[derive(Debug, Default)]
pub(super) struct Pipelining {
    mode: ConnectionMode,
    /// Requests that followed another one have all been answered.
    is_proven: bool,
    breaks: u32,
    closed_after_one: u32,
}

impl Pipelining {
    pub(super) fn mode(&self) -> ConnectionMode {
        self.mode
    }

    /// Returns true if requests that followed another one have all been answered.
    pub(super) fn is_proven(&self) -> bool {
        self.is_proven
    }

    /// Connections that may be open to a tracker, which is known to answer or not.
    pub(super) fn max_connections(&self, is_up: bool) -> usize {
        match (is_up, self.mode) {
            (true, ConnectionMode::OneAtATime) => MAX_ONE_AT_A_TIME,
            (true, ConnectionMode::Closing) => MAX_CLOSING,
            _ => 1,
        }
    }

    /// Requests that a new connection may carry.
    pub(super) fn first_depth(&self, is_up: bool) -> usize {
        if is_up && self.is_proven && self.mode == ConnectionMode::Pipelined {
            PROVEN_DEPTH
        } else {
            1
        }
    }

    /// A connection of this depth has answered a request, and says whether it may carry several.
    /// `batch` is how many had followed each other, when that was the last of them. Returns the depth
    /// from now on.
    pub(super) fn handle_answer(
        &mut self,
        depth: usize,
        batch: Option<usize>,
        may_pipeline: bool,
    ) -> usize {
        if !may_pipeline && self.mode == ConnectionMode::Pipelined {
            self.mode = ConnectionMode::OneAtATime;
        }
        if self.mode != ConnectionMode::Pipelined {
            return 1;
        }
        self.is_proven |= batch.is_some_and(|batch| batch >= TRIAL_DEPTH);
        match (self.is_proven, batch) {
            (true, _) => (depth * 2).min(MAX_DEPTH),
            (false, Some(_)) => TRIAL_DEPTH,
            (false, None) => depth,
        }
    }

    /// A connection has ended. Returns true if the mode has changed.
    pub(super) fn handle_end(&mut self, end: ConnectionEnd) -> bool {
        let before = self.mode;
        if end.answered == 1 && end.lost == 0 {
            self.closed_after_one += 1;
            if end.is_announced || self.closed_after_one > 1 {
                self.mode = ConnectionMode::Closing;
            }
        } else if end.answered > 1 {
            self.closed_after_one = 0;
        }
        let is_break = end.lost > 0 && end.batch >= TRIAL_DEPTH && !end.is_announced;
        if is_break && self.mode == ConnectionMode::Pipelined {
            if end.answered >= ENOUGH_ANSWERS {
                self.breaks = 0;
            } else {
                self.breaks += 1;
            }
            if !self.is_proven || self.breaks >= MAX_BREAKS {
                self.mode = ConnectionMode::OneAtATime;
            }
        }
        self.mode != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(
        pipelining: &mut Pipelining,
        answered: u32,
        lost: usize,
        batch: usize,
        is_announced: bool,
    ) -> bool {
        pipelining.handle_end(ConnectionEnd {
            answered,
            lost,
            batch,
            is_announced,
        })
    }

    #[test]
    fn pipelining_deepens_once_it_is_proven() {
        let mut pipelining = Pipelining::default();
        assert_eq!(pipelining.handle_answer(1, Some(1), true), 2);
        // One of two is no proof, and nothing follows until both are answered.
        assert_eq!(pipelining.handle_answer(2, None, true), 2);
        assert!(!pipelining.is_proven());
        let mut depths = vec![2];
        for batch in [Some(2), None, None, None, None, None, None] {
            let depth = *depths.last().unwrap();
            depths.push(pipelining.handle_answer(depth, batch, true));
        }
        assert_eq!(depths, [2, 4, 8, 16, 32, 64, 128, 128]);
        assert_eq!(
            (
                pipelining.first_depth(true),
                pipelining.max_connections(true)
            ),
            (PROVEN_DEPTH, 1)
        );
        // A server may end a connection after a number of requests.
        assert!(!end(&mut pipelining, 1000, 90, 128, true));
        assert!(!end(&mut pipelining, 1000, 90, 128, false));
        assert_eq!(pipelining.mode, ConnectionMode::Pipelined);
    }

    #[test]
    fn pipelining_that_never_worked_is_given_up_at_the_first_break() {
        // Both were lost, or the second was forgotten.
        for (answered, lost) in [(1, 2), (2, 1)] {
            let mut pipelining = Pipelining::default();
            assert_eq!(pipelining.handle_answer(1, Some(1), true), 2);
            assert!(end(&mut pipelining, answered, lost, 2, false));
            assert_eq!(
                (pipelining.mode, pipelining.max_connections(true)),
                (ConnectionMode::OneAtATime, 4)
            );
            assert_eq!(pipelining.handle_answer(1, Some(1), true), 1);
        }
    }

    #[test]
    fn the_loss_of_a_single_request_says_nothing_about_pipelining() {
        let mut pipelining = Pipelining::default();
        pipelining.handle_answer(1, Some(1), true);
        assert!(!end(&mut pipelining, 3, 1, 1, false));
        assert_eq!(pipelining.mode, ConnectionMode::Pipelined);
    }

    #[test]
    fn pipelining_that_breaks_repeatedly_is_given_up() {
        let mut pipelining = Pipelining::default();
        pipelining.handle_answer(2, Some(2), true);
        for answered in [5, 5, 100, 5, 5] {
            assert!(!end(&mut pipelining, answered, 9, 9, false));
        }
        assert!(end(&mut pipelining, 5, 9, 9, false));
        assert_eq!(pipelining.mode, ConnectionMode::OneAtATime);
    }

    #[test]
    fn servers_that_close_after_each_response_are_recognised() {
        let mut pipelining = Pipelining::default();
        assert!(end(&mut pipelining, 1, 0, 1, true));
        assert_eq!(
            (pipelining.mode, pipelining.max_connections(true)),
            (ConnectionMode::Closing, 8)
        );
        let mut pipelining = Pipelining::default();
        assert!(!end(&mut pipelining, 1, 0, 1, false));
        assert!(end(&mut pipelining, 1, 0, 1, false));
        let mut old = Pipelining::default();
        assert_eq!(old.handle_answer(1, Some(1), false), 1);
        assert_eq!(old.mode, ConnectionMode::OneAtATime);
    }

    #[test]
    fn only_connections_in_a_row_that_end_after_one_answer_mean_closing() {
        // A connection that answered more need not have ended; one that lost a request does not count.
        for (between, is_closing) in [((2, 0), false), ((1, 1), true)] {
            let mut pipelining = Pipelining::default();
            assert!(!end(&mut pipelining, 1, 0, 1, false));
            assert!(!end(&mut pipelining, between.0, between.1, 1, false));
            assert_eq!(
                end(&mut pipelining, 1, 0, 1, false),
                is_closing,
                "{between:?}"
            );
        }
    }

    #[test]
    fn a_connection_that_ends_with_all_answered_is_no_break() {
        let mut pipelining = Pipelining::default();
        assert!(!end(&mut pipelining, 5, 0, TRIAL_DEPTH, false));
        assert_eq!(pipelining.mode, ConnectionMode::Pipelined);
    }
}
