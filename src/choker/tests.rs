//! What the rules of fairness promise, one promise a test.

use super::*;

const MIB: u64 = 1024 * 1024;
const T0: Time = Time(0);

fn choker(max_unchoked: usize) -> Choker {
    Choker::new(ChokerConfig {
        max_unchoked,
        credit_bytes: MIB,
        max_unchoked_ms: 300_000,
        unused_slot_ms: 30_000,
        idle_ms: 60_000,
    })
}

fn key(index: u32) -> PeerKey {
    PeerKey {
        index,
        generation: index + 100,
    }
}

fn interested(choker: &mut Choker, peers: std::ops::Range<u32>) {
    for index in peers {
        choker.interested(key(index));
    }
}

fn rebalance(choker: &mut Choker, now: Time) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    choker.rebalance(now, false, &mut verdicts);
    verdicts
}

fn rebalance_at_capacity(choker: &mut Choker, now: Time) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    choker.rebalance(now, true, &mut verdicts);
    verdicts
}

fn is_disconnect(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Disconnect(..))
}

fn unchoke(peers: std::ops::Range<u32>) -> Vec<Verdict> {
    peers.map(|index| Verdict::Unchoke(key(index))).collect()
}

/// What fairness costs for each connection, beside its entries in the sets.
#[test]
fn a_member_is_small() {
    assert!(size_of::<Option<(u32, Member)>>() <= 40);
}

#[test]
fn free_slots_go_to_the_head_of_the_queue() {
    let mut choker = choker(3);
    interested(&mut choker, 0..5);
    choker.interested(key(0));
    assert_eq!(choker.poll_at(false), Some(Time(0)));
    assert_eq!(rebalance(&mut choker, T0), unchoke(0..3));
    assert_eq!((choker.unchoked(), choker.waiting()), (3, 2));
    assert!(!choker.not_interested(key(3), T0));
    assert!(choker.not_interested(key(1), T0));
    choker.interested(key(3));
    assert_eq!(rebalance(&mut choker, T0), unchoke(4..5));
    choker.disconnected(key(0));
    choker.disconnected(key(0));
    assert_eq!(rebalance(&mut choker, T0), unchoke(3..4));
    assert_eq!((choker.unchoked(), choker.waiting()), (3, 0));
}

#[test]
fn credit_never_falls_below_zero_and_ends_the_term() {
    let mut choker = choker(1);
    interested(&mut choker, 0..2);
    rebalance(&mut choker, T0);
    assert_eq!(
        (choker.credit_bytes(key(0)), choker.credit_bytes(key(1))),
        (MIB, 0)
    );
    choker.sent(key(0), MIB - 1, T0);
    assert_eq!(rebalance(&mut choker, T0), []);
    assert_eq!(choker.credit_bytes(key(0)), 1);
    choker.sent(key(0), 5000, T0);
    choker.sent(key(0), 5000, T0);
    assert_eq!(choker.credit_bytes(key(0)), 0);
    assert_eq!(choker.poll_at(false), Some(Time(0)));
    let verdicts = rebalance(&mut choker, T0);
    assert_eq!(verdicts, [Verdict::Choke(key(0)), Verdict::Unchoke(key(1))]);
    assert_eq!(
        (choker.credit_bytes(key(0)), choker.credit_bytes(key(1))),
        (0, MIB)
    );
    choker.sent(key(0), 9000, T0);
    assert_eq!(rebalance(&mut choker, T0), []);
}

#[test]
fn nineteen_thousand_peers_on_as_many_slots_are_all_refilled() {
    let mut choker = choker(19_000);
    interested(&mut choker, 0..19_000);
    assert_eq!(rebalance(&mut choker, T0).len(), 19_000);
    for round in 1..5 {
        let now = Time(round * 1000);
        for index in 0..19_000 {
            choker.requested(key(index), now);
            choker.sent(key(index), MIB + 5, now);
        }
        assert_eq!(rebalance(&mut choker, now), []);
        assert_eq!(
            (choker.unchoked(), choker.credit_bytes(key(77))),
            (19_000, MIB)
        );
    }
    assert_eq!(choker.clocks.len(), 19_000);
}

#[test]
fn a_thousand_peers_on_fifty_slots_have_equal_terms() {
    let mut choker = choker(50);
    interested(&mut choker, 0..1000);
    let mut unchoked: Vec<u32> = Vec::new();
    let mut terms = [0_u32; 1000];
    for round in 0..2000_u16 {
        let now = Time(u64::from(round) * 100);
        // In each round one in five has taken all of its credit.
        let done: Vec<u32> = unchoked
            .iter()
            .copied()
            .skip(usize::from(round) % 5)
            .step_by(5)
            .collect();
        for index in done {
            choker.sent(key(index), MIB, now);
        }
        for verdict in rebalance(&mut choker, now) {
            match verdict {
                Verdict::Unchoke(key) => {
                    unchoked.push(key.index);
                    terms[key.index as usize] += 1;
                }
                Verdict::Choke(key) => unchoked.retain(|&index| index != key.index),
                Verdict::Renew(_) | Verdict::Disconnect(..) => panic!("{verdict:?}"),
            }
        }
        assert_eq!(
            (unchoked.len(), choker.unchoked(), choker.waiting()),
            (50, 50, 950)
        );
    }
    let (least, most) = (terms.iter().min(), terms.iter().max());
    assert!(
        least >= Some(&15) && most.zip(least).is_some_and(|(m, l)| m - l <= 2),
        "{least:?} {most:?}"
    );
}

#[test]
fn turns_that_end_together_do_not_take_each_others_slots() {
    let mut choker = choker(3);
    interested(&mut choker, 0..4);
    rebalance(&mut choker, T0);
    for index in 0..3 {
        choker.sent(key(index), MIB, T0);
    }
    let verdicts = rebalance(&mut choker, T0);
    assert_eq!(verdicts, [Verdict::Choke(key(0)), Verdict::Unchoke(key(3))]);
    assert_eq!(choker.credit_bytes(key(1)), MIB, "a new term of its own");
    assert_eq!(choker.waiting(), 1);
}

#[test]
fn a_term_ends_by_time_though_credit_is_left() {
    let mut choker = choker(1);
    interested(&mut choker, 0..2);
    rebalance(&mut choker, T0);
    for second in 1..300 {
        choker.sent(key(0), 10, Time(second * 1000));
        assert_eq!(rebalance(&mut choker, Time(second * 1000)), []);
        assert!(
            choker
                .poll_at(false)
                .is_some_and(|at| at.0 > second * 1000 && at.0 <= 300_000)
        );
    }
    let verdicts = rebalance(&mut choker, Time(300_000));
    assert_eq!(verdicts, [Verdict::Choke(key(0)), Verdict::Unchoke(key(1))]);
}

#[test]
fn a_term_that_ends_by_credit_and_by_time_at_once_ends_once() {
    let mut choker = choker(1);
    interested(&mut choker, 0..3);
    rebalance(&mut choker, T0);
    let end = Time(300_000);
    choker.requested(key(0), end);
    choker.sent(key(0), MIB, end);
    let verdicts = rebalance(&mut choker, end);
    assert_eq!(verdicts, [Verdict::Choke(key(0)), Verdict::Unchoke(key(1))]);
    assert_eq!((choker.unchoked(), choker.waiting()), (1, 2));
}

#[test]
fn a_slot_on_which_nothing_moves_is_given_on_after_thirty_seconds() {
    let mut choker = choker(1);
    interested(&mut choker, 0..2);
    rebalance(&mut choker, T0);
    choker.requested(key(0), Time(10_000));
    assert_eq!(rebalance(&mut choker, Time(39_999)), []);
    assert_eq!(choker.poll_at(false), Some(Time(40_000)));
    let verdicts = rebalance(&mut choker, Time(40_000));
    assert_eq!(verdicts, [Verdict::Choke(key(0)), Verdict::Unchoke(key(1))]);
}

#[test]
fn whoever_never_asks_is_disconnected_after_the_second_term() {
    let mut choker = choker(1);
    interested(&mut choker, 0..2);
    rebalance(&mut choker, T0);
    let mut last = Vec::new();
    for second in 1..=90 {
        let now = Time(second * 1000);
        choker.requested(key(1), now);
        if second == 60 {
            choker.sent(key(1), MIB, now);
        }
        let verdicts = rebalance(&mut choker, now);
        if !verdicts.is_empty() {
            last.push((second, verdicts));
        }
    }
    let gone = Verdict::Disconnect(key(0), CloseReason::SlotUnused);
    assert_eq!(
        last,
        [
            (30, vec![Verdict::Choke(key(0)), Verdict::Unchoke(key(1))]),
            (60, vec![Verdict::Choke(key(1)), Verdict::Unchoke(key(0))]),
            (90, vec![gone, Verdict::Unchoke(key(1))]),
        ]
    );
}

#[test]
fn a_term_that_was_used_forgives_one_that_was_not() {
    let mut choker = choker(1);
    interested(&mut choker, 0..2);
    let mut now = T0;
    for term in 0..6 {
        rebalance(&mut choker, now);
        choker.requested(key(1), now);
        if term % 4 == 2 {
            choker.requested(key(0), now);
        }
        now = now.after(30_000);
    }
    let verdicts = rebalance(&mut choker, now);
    assert!(!verdicts.iter().any(is_disconnect), "{verdicts:?}");
}

#[test]
fn whoever_asks_and_is_held_up_only_loses_its_term() {
    let mut choker = choker(1);
    interested(&mut choker, 0..2);
    for term in 0..8 {
        let now = Time(term * 30_000);
        let verdicts = rebalance(&mut choker, now);
        assert!(!verdicts.iter().any(is_disconnect), "{verdicts:?}");
        choker.requested(key(0), now);
        choker.requested(key(1), now);
    }
}

#[test]
fn while_nobody_waits_even_an_unused_slot_is_kept() {
    let mut choker = choker(2);
    interested(&mut choker, 0..2);
    rebalance(&mut choker, T0);
    for second in 1..1000 {
        assert_eq!(rebalance(&mut choker, Time(second * 1000)), []);
    }
    assert_eq!(choker.unchoked(), 2);
}

#[test]
fn a_at_capacity_disconnects_whose_term_is_over_while_others_wait() {
    let mut choker = choker(2);
    interested(&mut choker, 0..3);
    rebalance(&mut choker, T0);
    choker.sent(key(0), MIB, T0);
    choker.sent(key(1), MIB, T0);
    let over = Verdict::Disconnect(key(0), CloseReason::TurnOver);
    let verdicts = rebalance_at_capacity(&mut choker, T0);
    assert_eq!(verdicts, [over, Verdict::Unchoke(key(2))]);
    assert_eq!(choker.credit_bytes(key(1)), MIB, "nobody else waits");
    choker.disconnected(key(0));
    assert_eq!((choker.unchoked(), choker.waiting()), (2, 0));
}

#[test]
fn at_capacity_the_choker_does_not_forgive_an_unused_term() {
    let mut choker = choker(2);
    interested(&mut choker, 0..2);
    rebalance(&mut choker, T0);
    choker.sent(key(0), 1, T0);
    let verdicts = rebalance_at_capacity(&mut choker, Time(30_000));
    let gone = Verdict::Disconnect(key(1), CloseReason::SlotUnused);
    assert_eq!(verdicts, [gone]);
}

#[test]
fn a_peer_may_leave_in_every_state_and_leaves_nothing() {
    let mut choker = choker(2);
    interested(&mut choker, 0..4);
    rebalance(&mut choker, T0);
    choker.sent(key(0), MIB, T0);
    for index in [0, 1, 2, 3, 9] {
        choker.disconnected(key(index));
    }
    assert_eq!(rebalance(&mut choker, Time(40_000)), []);
    assert_eq!((choker.unchoked(), choker.waiting()), (0, 0));
    assert!(choker.clocks.is_empty() && choker.spent.is_empty());
    assert_eq!(choker.poll_at(false), None);
}

#[test]
fn credit_used_up_by_a_peer_that_left_and_came_back_does_not_end_its_new_term() {
    let mut choker = choker(1);
    interested(&mut choker, 0..1);
    rebalance(&mut choker, T0);
    choker.sent(key(0), MIB, T0);
    choker.not_interested(key(0), T0);
    choker.interested(key(0));
    interested(&mut choker, 1..2);
    assert_eq!(rebalance(&mut choker, T0), unchoke(0..1));
    assert_eq!(choker.credit_bytes(key(0)), MIB);
}

#[test]
fn a_late_word_about_an_old_connection_does_not_reach_the_new_one() {
    let mut choker = choker(1);
    let new = PeerKey {
        index: 0,
        generation: 200,
    };
    choker.interested(new);
    rebalance(&mut choker, T0);
    choker.sent(key(0), MIB, T0);
    choker.disconnected(key(0));
    assert!(!choker.not_interested(key(0), T0));
    assert_eq!(choker.credit_bytes(key(0)), 0);
    assert_eq!(choker.credit_bytes(new), MIB);
}

#[test]
fn slots_that_are_taken_away_are_given_back_as_terms_end_though_nobody_waits() {
    let mut choker = choker(3);
    interested(&mut choker, 0..3);
    rebalance(&mut choker, T0);
    let fewer = ChokerConfig {
        max_unchoked: 1,
        ..choker.config()
    };
    choker.configure(fewer);
    assert_eq!(rebalance(&mut choker, T0), []);
    choker.sent(key(0), MIB, T0);
    choker.sent(key(1), MIB, T0);
    choker.sent(key(2), MIB, T0);
    let verdicts = rebalance(&mut choker, T0);
    assert_eq!(verdicts, [0, 1].map(|index| Verdict::Choke(key(index))));
    assert_eq!((choker.unchoked(), choker.waiting()), (1, 2));
}

#[test]
fn at_capacity_the_peer_that_was_idle_longest_is_disconnected() {
    let mut choker = choker(0);
    choker.connected(key(2), Time(5));
    choker.connected(key(1), Time(7));
    assert_eq!(choker.poll_at(false), None);
    assert_eq!(choker.poll_at(true), Some(Time(60_005)));
    assert_eq!(rebalance_at_capacity(&mut choker, Time(60_004)), []);
    assert_eq!(rebalance(&mut choker, Time(90_000)), [], "there is room");
    let gone = |index| [Verdict::Disconnect(key(index), CloseReason::IdleAtCapacity)];
    assert_eq!(rebalance_at_capacity(&mut choker, Time(60_007)), gone(2));
    assert_eq!(rebalance_at_capacity(&mut choker, Time(60_007)), gone(1));
    assert_eq!(rebalance_at_capacity(&mut choker, Time(90_000)), []);
    assert!(choker.idle.is_empty());
}

#[test]
fn interest_ends_idleness_and_activity_restarts_it() {
    let mut choker = choker(0);
    for index in 0..3 {
        choker.connected(key(index), T0);
    }
    choker.interested(key(0));
    choker.active(key(0), Time(1));
    choker.active(key(1), Time(2));
    let gone = |index| [Verdict::Disconnect(key(index), CloseReason::IdleAtCapacity)];
    assert_eq!(rebalance_at_capacity(&mut choker, Time(60_001)), gone(2));
    assert_eq!(rebalance_at_capacity(&mut choker, Time(60_001)), []);
    assert_eq!(rebalance_at_capacity(&mut choker, Time(60_002)), gone(1));
    choker.not_interested(key(0), Time(70_000));
    assert_eq!(choker.poll_at(true), Some(Time(130_000)));
}

#[test]
fn an_idle_peer_takes_a_free_slot_and_then_its_term_decides() {
    let mut choker = choker(1);
    choker.connected(key(0), T0);
    choker.connected(key(1), T0);
    assert_eq!(rebalance(&mut choker, T0), unchoke(0..1));
    assert_eq!(
        choker.waiting(),
        0,
        "only free slots are given to idle peers"
    );
    choker.sent(key(0), 1, Time(59_000));
    let gone = Verdict::Disconnect(key(1), CloseReason::IdleAtCapacity);
    assert_eq!(rebalance_at_capacity(&mut choker, Time(60_000)), [gone]);
    assert_eq!(choker.poll_at(true), Some(Time(89_000)), "its term ends");
    let gone = Verdict::Disconnect(key(0), CloseReason::SlotUnused);
    choker.not_interested(key(0), Time(61_000));
    choker.connected(key(2), Time(61_000));
    assert_eq!(rebalance(&mut choker, Time(61_000)), unchoke(2..3));
    assert_ne!(rebalance_at_capacity(&mut choker, Time(91_000)), [gone]);
}

/// What fairness costs for each slot.
#[test]
fn a_term_is_small() {
    assert!(size_of::<Term>() <= 64, "{}", size_of::<Term>());
}

fn of_bytes(credit_bytes: u64) -> TermLength {
    TermLength {
        credit_bytes,
        unused_slot_ms: 30_000,
        tells_renewal: false,
    }
}

#[test]
fn a_long_term_is_followed_by_as_many_rounds_without_one() {
    let mut choker = choker(1);
    interested(&mut choker, 0..3);
    assert_eq!(rebalance(&mut choker, T0), unchoke(0..1));
    choker.set_term(key(0), of_bytes(3 * MIB));
    let mut order = vec![0];
    for _ in 0..8 {
        let holder = *order.last().unwrap();
        choker.sent(key(holder), if holder == 0 { 3 * MIB } else { MIB }, T0);
        let verdicts = rebalance(&mut choker, T0);
        let [Verdict::Choke(from), Verdict::Unchoke(to)] = verdicts[..] else {
            panic!("{verdicts:?}");
        };
        assert_eq!(from, key(holder));
        if to == key(0) {
            choker.set_term(to, of_bytes(3 * MIB));
        }
        order.push(to.index);
    }
    // Each of the others has three terms of 1 MiB for one of 3 MiB.
    assert_eq!(order, [0, 1, 2, 1, 2, 1, 2, 0, 1]);
}

#[test]
fn a_set_term_ends_when_its_slot_is_unused_for_as_long_as_was_set() {
    let mut choker = choker(1);
    interested(&mut choker, 0..2);
    rebalance(&mut choker, T0);
    let length = TermLength {
        unused_slot_ms: 2_000,
        ..of_bytes(MIB)
    };
    choker.set_term(key(0), length);
    choker.requested(key(0), Time(500));
    assert_eq!(rebalance(&mut choker, Time(2_499)), []);
    let verdicts = rebalance(&mut choker, Time(2_500));
    assert_eq!(verdicts, [Verdict::Choke(key(0)), Verdict::Unchoke(key(1))]);
}

#[test]
fn a_term_that_is_ended_early_is_no_fault_of_the_peer() {
    let mut choker = choker(1);
    interested(&mut choker, 0..2);
    rebalance(&mut choker, T0);
    for round in 1..6 {
        let holder = key((round + 1) % 2);
        choker.end_term(holder);
        choker.end_term(holder);
        assert_eq!(choker.credit_bytes(holder), 0);
        let other = key(round % 2);
        let verdicts = rebalance(&mut choker, T0);
        assert_eq!(verdicts, [Verdict::Choke(holder), Verdict::Unchoke(other)]);
    }
}

#[test]
fn an_unused_term_whose_renewal_is_told_does_not_end_the_peer() {
    let mut choker = choker(2);
    interested(&mut choker, 0..2);
    rebalance(&mut choker, T0);
    let length = TermLength {
        unused_slot_ms: 2_000,
        tells_renewal: true,
        ..of_bytes(MIB)
    };
    choker.set_term(key(0), length);
    for second in [2, 4, 6] {
        let verdicts = rebalance_at_capacity(&mut choker, Time(second * 1000));
        assert_eq!(verdicts, [Verdict::Renew(key(0))]);
    }
}

#[test]
fn a_renewal_is_told_if_that_was_set() {
    let mut choker = choker(2);
    interested(&mut choker, 0..2);
    rebalance(&mut choker, T0);
    let length = TermLength {
        tells_renewal: true,
        ..of_bytes(MIB)
    };
    choker.set_term(key(0), length);
    choker.sent(key(0), MIB, T0);
    choker.sent(key(1), MIB, T0);
    assert_eq!(rebalance(&mut choker, T0), [Verdict::Renew(key(0))]);
    assert_eq!(choker.credit_bytes(key(0)), MIB);
}
